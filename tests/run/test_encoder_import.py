"""Test imported encoders: into the store, into plans, and errors where one is missing."""

from __future__ import annotations

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from chexseg.config import study_file
from chexseg.config.settings import TRAINED_ENCODERS
from chexseg.errors import UserError
from chexseg.models import encoders
from chexseg.plan import planner, status
from chexseg.plan.graph import Plan, node_of
from chexseg.run import encoder_import
from chexseg.run.execute import execute
from chexseg.stages import imported
from chexseg.stages.api import StageContext
from chexseg.stages.artifacts import ENCODER_WEIGHTS
from chexseg.stages.configs import ENCODER_KINDS, ImportedConfig
from chexseg.store import manifest, marker
from chexseg.store.store import Store

DATA = {"train": "a", "valid": "b", "test": "c"}
SMALL = """
name: small
axes: {labels.p: [0, 1]}
settings:
  encoder: {init: imagenet}
  labels: {weak: irnet}
  irnet: {init: imagenet}
"""


@pytest.fixture(scope="module")
def store(files, tmp_path_factory) -> Store:
    filled = Store(tmp_path_factory.mktemp("imports") / "store")
    for kind in ENCODER_KINDS:
        encoder_import.import_encoder(files[kind], kind, "resnet18", filled)
    encoder_import.import_encoder(files["resnet50"], "imagenet", "resnet50", filled)
    return filled


def planned(text: str, store: Store | None = None) -> Plan:
    return planner.plan(study_file.parse(text, "x.yaml"), DATA, store.imported() if store else None)


def test_an_import_is_an_artifact_like_any_other(files, store):
    marker.check_marked(store)
    assert store.imported().keys() == {
        *((kind, "resnet18") for kind in ENCODER_KINDS),
        ("imagenet", "resnet50"),
    }
    sha256 = store.imported()["moco-cxr", "resnet18"]
    config = ImportedConfig(kind="moco-cxr", architecture="resnet18", sha256=sha256)
    artifact = store.find("imported", node_of("imported", config, {}).key)
    assert artifact is not None
    assert artifact.facts == {
        "file": "moco-cxr.pt",
        "matched": 120,
        "ignored": ["module.encoder_q.fc.weight", "module.encoder_q.fc.bias"],
    }
    assert set(artifact.manifest["files"]) == {"encoder.safetensors", "encoder.json"}
    weights = load_file(artifact.path / ENCODER_WEIGHTS)
    source = torch.load(files["moco-cxr"], weights_only=True)["state_dict"]
    assert all(
        torch.equal(value, source[f"module.encoder_q.{name}"]) for name, value in weights.items()
    )
    assert encoders.describe(artifact.path / ENCODER_WEIGHTS)["init"] == "moco"
    assert not list((store.backend.local / ".partial").iterdir())


def test_the_same_weights_again_are_found_and_of_several_the_last_import_counts(files, tmp_path):
    store = Store(tmp_path / "store")
    first = encoder_import.import_encoder(files["imagenet"], "imagenet", "resnet18", store)
    again = encoder_import.import_encoder(files["imagenet"], "imagenet", "resnet18", store)
    assert (first.cached, first.newest, again.cached, again.newest) == (False, True, True, True)
    assert again.artifact.manifest == first.artifact.manifest
    second = encoder_import.import_encoder(files["other"], "imagenet", "resnet18", store)
    assert (second.cached, second.newest) == (False, True)
    assert store.imported() == {("imagenet", "resnet18"): second.encoder.sha256}
    # By the manifests' times, because a copy may have changed the files' times.
    path = second.artifact.path / manifest.MANIFEST
    earlier = json.loads(path.read_text()) | {"finished": "2020-01-01T00:00:00+00:00"}
    path.write_text(json.dumps(manifest.seal(earlier)))
    assert store.imported() == {("imagenet", "resnet18"): first.encoder.sha256}
    os.truncate(first.artifact.path / ENCODER_WEIGHTS, 100)
    assert store.imported() == {("imagenet", "resnet18"): first.encoder.sha256}, (
        "not another in place of a damaged one"
    )
    with pytest.raises(
        UserError, match="is damaged in the store or missing from it; hint: import it again"
    ):
        imported.run(
            ImportedConfig.model_validate(first.artifact.manifest["config"]),
            {},
            tmp_path,
            StageContext(),
        )
    mended = encoder_import.import_encoder(files["imagenet"], "imagenet", "resnet18", store)
    assert (mended.cached, mended.newest) == (False, True)


def test_nothing_is_left_of_a_refused_import(files, tmp_path):
    store = Store(tmp_path / "store")
    for arguments in (
        (files["resnet50"], "imagenet", "resnet18"),
        (files["imagenet"], "imagnet", "resnet18"),
        (files["imagenet"], "imagenet", "resnet81"),
    ):
        with pytest.raises(UserError):
            encoder_import.import_encoder(*arguments, store)
    assert list(tmp_path.iterdir()) == []


def test_a_plan_takes_what_was_imported(store):
    study_plan = planned(SMALL, store)
    stages = [node.stage for node in study_plan.nodes.values()]
    assert stages.count("imported") == 2
    assert "pretrain" not in stages
    for cell in study_plan.cells:
        encoder = study_plan.nodes[study_plan.nodes[cell.fit].inputs["encoder"]]
        assert (encoder.stage, encoder.config["kind"], encoder.config["architecture"]) == (
            "imported",
            "imagenet",
            "resnet18",
        )
    walk = next(node for node in study_plan.nodes.values() if node.stage == "irnet")
    assert study_plan.nodes[walk.inputs["encoder"]].config["architecture"] == "resnet50"
    states = status.summarise(study_plan, store).states
    assert {states[key] for key, node in study_plan.nodes.items() if node.stage == "imported"} == {
        "cached"
    }


def test_a_studys_own_pretraining_is_the_default_of_chexpert_and_moco(store):
    def sources(text: str) -> set[str]:
        study_plan = planned(text, store)
        return {
            study_plan.nodes[study_plan.nodes[cell.fit].inputs["encoder"]].stage
            for cell in study_plan.cells
        }

    assert sources("name: s") == {"pretrain"}
    assert sources("name: s\nsettings: {encoder: {imported: true}}") == {"imported"}
    assert sources("name: s\nsettings: {encoder: {init: moco}}") == {"moco"}
    assert sources("name: s\nsettings: {encoder: {init: moco, imported: true}}") == {"imported"}
    for init in TRAINED_ENCODERS:
        text = (
            f"name: s\nsettings: {{encoder: {{init: {init}}}}}\naxes: {{encoder.imported: [false, "
            f"true]}}"
        )
        assert [cell.name for cell in planned(text, store).cells] == [
            "full imported=False trial 0",
            "full imported=True trial 0",
        ]
    # With one source only, the setting changes nothing.
    for init in ("random", "imagenet"):
        text = f"name: s\nsettings: {{encoder: {{init: {init}}}}}\n"
        assert (
            planned(text + "axes: {encoder.imported: [true]}", store).cells
            == planned(text, store).cells
        )


def test_keys_that_were_stay_and_other_weights_are_other_keys(store):
    def score(text: str, given: dict | None) -> str:
        (cell,) = planner.plan(study_file.parse(text, "x.yaml"), DATA, given).cells
        return cell.score

    assert score("name: s", None) == score("name: s", store.imported())
    text = "name: s\nsettings: {encoder: {init: imagenet}}"
    assert score(text, store.imported()) != score(
        text, store.imported() | {("imagenet", "resnet18"): "f" * 64}
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "{encoder: {init: imagenet}}",
            "encoder.init: found imagenet: no imagenet encoder of resnet18 is in the store; "
            "import one first: chexseg encoder import [FILE] --kind imagenet --architecture "
            "resnet18",
        ),
        (
            "{encoder: {init: moco, imported: true, architecture: resnet34}}",
            "encoder.imported: found true: no moco-cxr encoder of resnet34 is in the store; "
            "import one first: chexseg encoder import FILE --kind moco-cxr --architecture "
            "resnet34",
        ),
        (
            "{encoder: {imported: true}}",
            "encoder.imported: found true: no chexpert encoder of resnet18 is in the store; "
            "import one first: chexseg encoder import FILE --kind chexpert --architecture "
            "resnet18",
        ),
        (
            "{labels: {p: 0.5, weak: irnet}, irnet: {init: imagenet}}",
            "irnet.init: found imagenet: no imagenet encoder of resnet50 is in the store; import "
            "one first: chexseg encoder import [FILE] --kind imagenet --architecture resnet50",
        ),
    ],
)
def test_a_missing_import_is_named_with_the_command_that_makes_it(settings, message):
    with pytest.raises(UserError) as caught:
        planned(f"name: s\nsettings: {settings}")
    assert str(caught.value) == message


def test_an_import_that_is_gone_when_its_study_runs_says_how_to_get_it_back(store, tmp_path):
    study_plan = planned(SMALL, store)
    node = next(node for node in study_plan.nodes.values() if node.stage == "imported")
    empty = Store(tmp_path / "store")
    with pytest.raises(
        UserError,
        match="is damaged in the store or missing.*chexseg encoder import .FILE. --kind imagenet",
    ):
        execute(node, study_plan.nodes, empty, tmp_path, StageContext())
    assert not list((empty.backend.local / ".partial").iterdir())
