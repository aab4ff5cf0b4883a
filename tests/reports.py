"""What a process of its own reports of many cases."""

import json
import traceback


def report(path, cases, problems):
    """Writes a JSON file of how many cases there are, and of the problems of each.

    Args:
        path: Where the file goes.
        cases: The cases, each a tuple of arguments.
        problems: Yields what is wrong with a case; an error is a problem too.
    """
    found, every = [], list(cases)
    for case in every:
        try:
            found += [f"{case}: {problem}" for problem in problems(*case)]
        except Exception:
            found.append(f"{case}: {traceback.format_exc()}")
    with open(path, "w") as file:
        json.dump({"cases": len(every), "problems": found}, file)
