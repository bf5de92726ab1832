"""Counts the cases of attacks, from the files that ``pytest -m attack --junitxml=FILE.xml`` has written.

``python docs/results/reliability/count.py FILE.xml ... > docs/results/reliability/attack.csv``
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from xml.etree import ElementTree

counts: Counter[tuple[str, str]] = Counter()
failed: Counter[tuple[str, str]] = Counter()
for path in sys.argv[1:]:
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = re.sub(r"\[.*", "", case.get("name", ""))
        for found in case.iter("property"):
            key = (str(found.get("name")), name)
            counts[key] += int(str(found.get("value")))
            failed[key] += case.find("failure") is not None or case.find("error") is not None
rows = csv.writer(sys.stdout, lineterminator="\n")
rows.writerow(["kind", "test", "cases", "failed tests"])
rows.writerows([*key, number, failed[key]] for key, number in sorted(counts.items()))
