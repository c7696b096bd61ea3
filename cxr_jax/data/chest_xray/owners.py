"""Files whose owner has no name, as in a container that runs under a bare user number."""

from __future__ import annotations

import contextlib
import grp
import pwd
from collections.abc import Iterator


@contextlib.contextmanager
def unnamed_owners() -> Iterator[None]:
    """Calls users and groups without a name by their number while the block runs.

    TFDS asks for the name of the owner of every file that it writes, though it needs only its size, and would fail.
    """
    user_of, group_of = pwd.getpwuid, grp.getgrgid

    def named_user(number: int) -> pwd.struct_passwd:
        try:
            return user_of(number)
        except KeyError:
            return pwd.struct_passwd((str(number), "x", number, number, "", "", ""))

    def named_group(number: int) -> grp.struct_group:
        try:
            return group_of(number)
        except KeyError:
            return grp.struct_group((str(number), "x", number, []))

    pwd.getpwuid, grp.getgrgid = named_user, named_group
    try:
        yield
    finally:
        pwd.getpwuid, grp.getgrgid = user_of, group_of
