"""`python -m tests.docs.reference FOLDER`: writes the generated pages."""

import sys
from pathlib import Path

from tests.docs.reference import files

for name, text in files().items():
    (Path(sys.argv[1]) / name).write_text(text)
