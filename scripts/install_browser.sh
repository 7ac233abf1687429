#!/usr/bin/env bash
# Installs Debian's Chromium, for the tests that open the report in a browser (pytest -m browser).
set -euo pipefail
if command -v chromium chromium-browser google-chrome >/dev/null; then
    echo "There is a browser already."
    exit
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-liberation
