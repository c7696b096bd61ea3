"""What `cxr-jax predict` says of films."""

import json

from cxr_jax.commands import predict


def probabilities_of(model, films, capsys):
    """An entry of each film, as the command prints it."""
    capsys.readouterr()
    predict.main([str(model), *films, "--json"])
    return json.loads(capsys.readouterr().out)
