"""What the tests of preparation ask of folders, and a source of class folders."""


def names_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def snapshot(folder):
    """Content of every file below `folder`."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def class_folders(root, count, jpeg):
    for label, name in enumerate(("Normal", "PNEUMONIA")):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.jpeg").write_bytes(jpeg(number + 1000 * label))
    return root
