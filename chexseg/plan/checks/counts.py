"""Check the counts that a plan asks for against the images, masks and labels of the raw data.

The stages check them too, but after hours: a segmenter needs a classifier first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from chexseg.config.study import Resources
from chexseg.data.sampling import splits
from chexseg.errors import UserError
from chexseg.plan.checks.mistakes import Mistake
from chexseg.plan.checks.split_facts import SplitFacts
from chexseg.plan.graph import Node, Plan
from chexseg.plan.preflight import SHARED

Facts = Mapping[str, SplitFacts]


def mistakes(nodes: Iterable[Node], plan: Plan, facts: Facts) -> Iterator[Mistake]:
    """Yield the mistakes of the nodes that are to run."""
    # Cells differ in little of what is checked, and there may be 100,000.
    groups: dict[tuple[object, ...], list[Node]] = {}
    for node in nodes:
        checked = (node.stage, node.inputs.get("weak"), node.inputs.get("saliency"))
        values = (repr(node.config.get(name)) for name in _CHECKED)
        groups.setdefault((*checked, *values), []).append(node)
    for group in groups.values():
        for mistake in _of_node(group[0], plan, facts):
            for node in group:
                yield mistake._replace(node=node.key)


def _of_node(node: Node, plan: Plan, facts: Facts) -> Iterator[Mistake]:
    config, train = node.config, facts["train"]
    if node.stage in ("classify", "pretrain", "moco"):
        yield from _training(node, train)
    elif node.stage == "saliency":
        yield from _mapped(node, train)
        yield from _expert_split(node, facts["valid"])
    elif node.stage == "irnet" and config["boundaries"]:
        most = images_with_maps(plan.nodes[node.inputs["saliency"]], train)
        what = "the training images with CAMs"
        yield from _most(node, "irnet.images", config["images"], most, what)
    elif node.stage == "fit":
        yield from _expert_split(node, facts["valid"])
        yield from _shown(node, facts)
        if "weak" in node.inputs:
            yield from _weak(node, plan, train)
    elif node.stage == "distil" and not train.frontal:
        text = f"found {config['fraction']:g}; expected frontal training images, found none"
        yield Mistake("distil.fraction", text, node.key)


#: Fields of configs that are checked here.
_CHECKED = (
    "batch_size", "queue", "images", "frontal_only", "boundaries", "expert_train", "expert_select",
    "expert_split_by", "split_seed", "pathologies", "checkpoint", "epochs", "weak_images",
    "negatives_empty", "p", "supervision", "fraction",
)  # fmt: skip


def shared_batches(nodes: Iterable[Node], resources: Resources) -> Iterator[Mistake]:
    """Yield the batch sizes that the workers of a training can't divide equally."""
    for node in nodes:
        workers = 1
        if node.stage == "fit":
            workers = resources.workers
        elif node.stage in SHARED and node.config.get("boundaries", True):
            workers = resources.stage_workers
        if node.config.get("batch_size", 0) % workers:
            text = (
                f"found {node.config['batch_size']};"
                f" expected a multiple of {workers}, the number of workers"
            )
            yield Mistake(f"{node.stage}.batch_size", text, node.key)


def _most(node: Node, setting: str, asked: int | None, most: int, what: str) -> Iterator[Mistake]:
    if (asked or 0) > most:
        yield Mistake(setting, f"found {asked}; expected at most {most}, {what}", node.key)


def _training(node: Node, train: SplitFacts) -> Iterator[Mistake]:
    for field in ("batch_size", "queue"):
        setting, asked = f"{node.stage}.{field}", node.config.get(field)
        yield from _most(node, setting, asked, train.images, "the number of training images")


def _mapped(node: Node, train: SplitFacts) -> Iterator[Mistake]:
    config, views = node.config, train.views(node.config["frontal_only"])
    what = "the frontal training images" if config["frontal_only"] else "the training images"
    yield from _most(node, "saliency.images", config["images"], views, what)
    if not views:
        text = "found true; expected frontal training images, found none"
        yield Mistake("saliency.frontal_only", text, node.key)


def images_with_maps(saliency: Node, train: SplitFacts) -> int:
    """Return the number of training images that a run of saliency maps."""
    views = train.views(saliency.config["frontal_only"])
    return min(saliency.config["images"] or views, views)


def _expert_split(node: Node, valid: SplitFacts) -> Iterator[Mistake]:
    try:
        splits.check_expert_split(
            node.config["expert_train"], node.config["expert_select"], len(valid.masks)
        )
    except UserError as error:
        yield Mistake.of(error, node.key)


def _shown(node: Node, facts: Facts) -> Iterator[Mistake]:
    """Yield what is missing among the masks of a fit: images, or pixels of its pathologies."""
    config, valid = node.config, facts["valid"]
    asked, studied = (config["expert_train"], config["expert_select"]), set(config["pathologies"])
    if sum(asked) > len(valid.masks):
        return
    ids = list(valid.masks)
    lists = splits.expert_split(
        ids,
        [valid.patients[image_id] for image_id in ids],
        *asked,
        config["split_seed"],
        config["expert_split_by"],
    )
    trained = config["epochs"] and config["checkpoint"] != "last"
    uses = (
        ("train", config["p"] > 0 or config["supervision"] == "teacher", "to learn from"),
        ("select", trained, "to choose the epoch on (or fit.checkpoint: last)"),
    )
    for (name, used, purpose), count, chosen in zip(uses, asked, lists, strict=True):
        setting = f"labels.expert_split.{name}"
        if count and not chosen:
            text = f"found {count}; expected at least as many as the images of some patient"
            yield Mistake(setting, text, node.key)
        elif chosen and used and not any(valid.masks[one] & studied for one in chosen):
            text = (
                f"found {count}, and none of these images shows a studied pathology;"
                f" expected at least one {purpose}"
            )
            yield Mistake(setting, text, node.key)
    if facts["test"].masks and not any(shown & studied for shown in facts["test"].masks.values()):
        text = "found none that a test mask shows; expected at least one to score"
        yield Mistake("pathologies", text, node.key)


def _weak(node: Node, plan: Plan, train: SplitFacts) -> Iterator[Mistake]:
    before = (plan.nodes[key] for key in plan.behind([node.inputs["weak"]]))
    config = node.config
    # A weak label that isn't made from CAMs says itself which images it has.
    for saliency in (one for one in before if one.stage == "saliency"):
        try:
            splits.check_weak_images(config["weak_images"], images_with_maps(saliency, train))
        except UserError as error:
            yield Mistake.of(error, node.key)
        only = saliency.config["frontal_only"]
        if config["negatives_empty"] and not train.labelled(config["pathologies"], only):
            text = (
                f"found {config['weak_images']}, and no training image has a positive or uncertain"
                " label of a studied pathology; expected some (or labels.negatives_empty: false)"
            )
            yield Mistake("labels.weak_images", text, node.key)
