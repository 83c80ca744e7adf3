"""Whether the packages on this machine are new enough."""

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement


def say_versions() -> None:
    """Print one line if a package is missing or too old: which one, and what to do. Print nothing otherwise.

    Hosts such as Colab have their own versions, and the set-up cell of a notebook installs only this package.
    """
    try:
        requirements = map(Requirement, requires("cnnlesson") or ())
    except PackageNotFoundError:  # imported from a folder, so nothing states its requirements
        return
    wrong = {}
    for requirement in requirements:
        if requirement.marker:  # for an option, such as Ray
            continue
        needed = f"{requirement.name}{requirement.specifier}"
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            wrong[needed] = "not installed"
        else:
            if not requirement.specifier.contains(installed, prereleases=True):
                wrong[needed] = f"{installed} is installed"
    if wrong:
        packages = " ".join(f'"{needed}"' for needed in wrong)
        print(
            f"This lesson needs {', '.join(f'{needed} ({found})' for needed, found in wrong.items())}. "
            f"Run %pip install {packages} in a new cell, restart the kernel (in Colab: Runtime, Restart session), and "
            "run this cell again."
        )
