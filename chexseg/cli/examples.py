"""An example of each command, which its help shows."""

from __future__ import annotations

EXAMPLES = {
    "demo": ["chexseg demo --out demo"],
    "report": ["chexseg report study.yaml --data ROOT --out report"],
    "compare": [
        "chexseg compare first.yaml second.yaml --data ROOT --out compare",
        "chexseg compare 'study.yaml#cam p=0.5' 'study.yaml#full' --data ROOT --out compare",
        "chexseg compare study.yaml --axis fit.loss --data ROOT --out compare",
        "chexseg compare masks.json study.yaml --data ROOT --out compare",
    ],
    "evaluate": ["chexseg evaluate --gt gt_segmentations_test.json --pred masks.json"],
    "predict": [
        "chexseg predict 'study.yaml#full trial 0' radiographs --data ROOT --out masks",
        "chexseg predict chexseg-store/fit/KEY film.dcm --out masks",
    ],
    "data phantom": ["chexseg data phantom phantom --train 160 --valid 90 --test 40 --size 96"],
    "data check": ["chexseg data check ROOT"],
    "study new": ["chexseg study new study.yaml"],
    "study settings": ["chexseg study settings fit.loss", "chexseg study settings labels"],
    "study plan": ["chexseg study plan study.yaml --data ROOT --set fit.epochs=5"],
    "study run": [
        "chexseg study run study.yaml --data ROOT",
        "chexseg study run study.yaml --data ROOT --only 'full*' --limit 1",
        "chexseg study run study.yaml --data s3://bucket/data --store s3://bucket/store"
        " --address auto",
    ],
    "study status": ["chexseg study status study.yaml --data ROOT"],
    "study watch": ["chexseg study watch study.yaml --data ROOT"],
    "encoder import": [
        "chexseg encoder import resnet18.pth --kind imagenet --architecture resnet18"
    ],
    "store list": ["chexseg store list --store chexseg-store"],
    "store verify": ["chexseg store verify --store chexseg-store"],
    "store gc": ["chexseg store gc study.yaml --data ROOT"],
}


def epilog(command: str) -> str:
    """Return the last paragraphs of a command's help. command: its full name."""
    title = "Example:" if len(EXAMPLES[command]) == 1 else "Examples:"
    return "\n\n".join([title, *EXAMPLES[command]])
