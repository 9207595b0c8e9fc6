"""Drain this node when EC2 announces its interruption: ``python -m chexseg.run.spot_notice``.

`cluster.yaml` starts it on every node. EC2 announces an interruption two minutes ahead, in the
instance's metadata (EC2 User Guide, "Spot Instance interruption notices"), which Ray doesn't read.
Ray starts nothing new on a drained node, and counts no failure for what dies there.

Ends after the notice, or at once if there is no metadata service. It runs for as long as its node,
so it doesn't import Ray.
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

#: The instance's metadata service; the variable is AWS's.
ENDPOINT = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254")

#: Seconds between two requests, as EC2's guide recommends.
PAUSE = 5.0

log = logging.getLogger(__name__)

#: Without a proxy, because the service is on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _request(path: str, method: str, **headers: str) -> str:
    request = urllib.request.Request(
        f"{ENDPOINT}/latest/{path}",
        headers={f"X-aws-ec2-metadata-{k.replace('_', '-')}": v for k, v in headers.items()},
        method=method,
    )
    with _opener.open(request, timeout=2) as answer:
        return str(answer.read(), "utf-8")


def notice() -> tuple[str, datetime] | None:
    """Return EC2's (action, time) for this instance, or None if there is no notice.

    action: "terminate", "stop" or "hibernate". Raises `OSError` if the service doesn't answer.
    """
    token = _request("api/token", "PUT", token_ttl_seconds="60")
    try:
        action = json.loads(_request("meta-data/spot/instance-action", "GET", token=token))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise
    return action["action"], datetime.fromisoformat(action["time"])


def drain(action: str, seconds: int) -> None:
    """Drain this node within `seconds`. Raises `subprocess.CalledProcessError` if Ray refuses."""
    subprocess.run(
        [
            *(sys.executable, "-P", "-m", "ray.scripts.scripts", "drain-node"),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION"),
            *("--reason-message", f"EC2 spot notice: {action}"),
            *("--deadline-remaining-seconds", str(seconds)),
        ],
        check=True,
    )


def main() -> None:
    """Wait for a notice, then drain this node."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    answered, received = False, None
    while received is None:
        if answered:
            time.sleep(PAUSE)
        try:
            received = notice()
        except OSError as error:
            if not answered and not isinstance(error, urllib.error.HTTPError):
                log.info("no EC2 metadata at %s (%s): no spot notices here", ENDPOINT, error)
                return
            log.warning("%s: %s; next request in %g s", ENDPOINT, error, PAUSE)
        answered = True
    action, when = received
    log.info("EC2 will %s this node at %s UTC: draining it", action, f"{when:%H:%M:%S}")
    drain(action, max(0, int((when - datetime.now(UTC)).total_seconds())))


if __name__ == "__main__":
    main()
