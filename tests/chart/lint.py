"""`helm lint --strict` of the chart, with the embedded cluster's helm."""

import subprocess
import sys

from tests.cluster.assets import find

if __name__ == "__main__":
    done = subprocess.run([str(find("helm")), "lint", "--strict", "--quiet", "helm/tortie"], check=False)
    sys.exit(done.returncode)
