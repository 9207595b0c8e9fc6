"""Tells Ray when EC2 is about to take this node away: ``python -m chexseg.run.spot_notice``, which `cluster.yaml` starts.

EC2 says so in the instance's own metadata, two minutes ahead (EC2 User Guide, "Spot Instance interruption notices"). Ray
doesn't look there; told of it, it starts nothing new on the node, and what dies there counts as no failure. Ends after the
notice, and at once where there is no metadata to ask for. Imports nothing of Ray: it waits on every node, all of its life.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime

#: Of the instance itself; the variable is AWS's own.
ENDPOINT = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254")

#: Seconds between two questions, as EC2's guide has it.
PAUSE = 5.0

log = logging.getLogger(__name__)

#: Without a proxy, for what is on this machine has to be reached directly.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _asked(path: str, method: str, **headers: str) -> str:
    request = urllib.request.Request(f"{ENDPOINT}/latest/{path}", method=method)
    for name, value in headers.items():
        request.add_header(f"X-aws-ec2-metadata-{name.replace('_', '-')}", value)
    with _opener.open(request, timeout=2) as answer:
        return answer.read().decode()


def notice() -> tuple[str, datetime] | None:
    """What EC2 will do with this instance ("terminate", "stop" or "hibernate") and when, if it has said so.

    Raises `OSError` where nothing answers.
    """
    token = _asked("api/token", "PUT", token_ttl_seconds="60")
    try:
        told = json.loads(_asked("meta-data/spot/instance-action", "GET", token=token))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return told["action"], datetime.fromisoformat(told["time"])


def drain(action: str, seconds: int) -> None:
    """Tell Ray that this node will be gone in so many seconds. Raises `subprocess.CalledProcessError` if Ray refuses."""
    words = [
        "--reason",
        "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message",
        f"EC2 spot notice: {action}",
    ]
    deadline = ["--deadline-remaining-seconds", str(seconds)]
    subprocess.run(
        [sys.executable, "-P", "-m", "ray.scripts.scripts", "drain-node", *words, *deadline],
        check=True,
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    answered, told = False, None
    while told is None:
        if answered:
            time.sleep(PAUSE)
        try:
            told = notice()
        except OSError as error:
            if not answered and not isinstance(error, urllib.error.HTTPError):
                log.info(
                    "no EC2 metadata at %s (%s): nobody tells when this node goes", ENDPOINT, error
                )
                return
            log.warning("%s: %s; asked again in %g s", ENDPOINT, error, PAUSE)
        answered = True
    action, when = told
    log.info("EC2 will %s this node at %s UTC: telling Ray", action, f"{when:%H:%M:%S}")
    drain(action, max(0, int((when - datetime.now(UTC)).total_seconds())))


if __name__ == "__main__":
    main()
