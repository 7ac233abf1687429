#!/bin/sh
# Write requirements.lock anew from the pins of conda.yaml: make lock
set -eu
cd "$(dirname "$0")/.."
uv=$(command -v .venv/bin/uv || command -v uv)
pins=$(sed -n 's/^ *- \([a-z-]*==.*\)/\1/p' conda.yaml)
torch=$(printf '%s\n' "$pins" | grep '^torch==')
cat >requirements.new <<END
# All that conda.yaml pins and all that needs, with hashes; written by make lock.
#
#   pip install --require-hashes --no-deps -r requirements.lock
#   pip install $torch
#
# torch is not below, nor the CUDA libraries that only its builds for CUDA bring: each build has its
# own. The second command takes PyPI's; add --index-url=https://download.pytorch.org/whl/cpu for the
# small one without CUDA.
END
printf '%s\n' "$pins" |
	"$uv" pip compile - --quiet --universal --python-version=3.11 --generate-hashes --no-header |
	awk '/^[a-z]/ { kept = $0 !~ /^(torch|triton|(cuda|nvidia)-[a-z0-9-]+)==/ } kept' >>requirements.new
mv requirements.new requirements.lock
