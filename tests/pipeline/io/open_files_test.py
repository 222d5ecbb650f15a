"""More files can be mapped than the usual limit allows."""

import subprocess
import sys

SCRIPT = """
import pathlib, resource, sys
from trainer.data import clean_utterances

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
mapped = []
for number in range(100):
    path = pathlib.Path(sys.argv[1], str(number))
    path.write_bytes(bytes([number]))
    mapped.append(clean_utterances._open(str(path)))
assert [int(data[0]) for data in mapped] == list(range(100))
"""


def test_more_shards_can_be_mapped_than_the_limit_allows(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
