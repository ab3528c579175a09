"""A tab on what is learned in one modality and recalled in the other: the matrix, the curves, who stays where."""

from __future__ import annotations

from typing import Any

from fiftyone.operators import types

from . import traces
from .panel_base import box, guarded, plain_text, say
from .transfer import RUN

SHOWN = 8  # identities with the largest gaps


class Transfer:
    """Handlers and elements of the tab; a part of the panel."""

    on_ask: Any  # of the panel: open an operator's form

    def show_transfer(self, ctx: Any, panel: types.Object) -> None:
        """The newest measurement, or what it would tell."""
        from audit_plugin.fiftyone_io import cross_modal as transfers

        run = transfers.newest_transfer(ctx.dataset)
        if not run:
            say(
                panel,
                "about",
                "**Recall across modalities**: a model learns the names of identities or classes from pictures: does "
                "it know them when it is asked with texts, and the other way round? Not measured yet.",
            )
            self._measure(panel, "Measure it")
            return
        summary, identities = transfers.transfer_found(ctx.dataset, run)
        self._show_matrix(panel, summary)
        self._show_findings(panel, summary)
        if "refused" not in summary:
            self._show_people(ctx, panel, run, summary, identities)
        self._measure(panel, "Measure again")

    def _measure(self, panel: types.Object, label: str) -> None:
        params = {"ask": "measure_transfer", "fill": {"run": RUN}}  # not the audit's key
        panel.btn("measure_transfer", label=label, variant="outlined", on_click=self.on_ask, params=params)

    def _show_matrix(self, panel: types.Object, summary: dict[str, Any]) -> None:
        about = (
            f"**Names recalled** of {summary['identities']:,} identities, by the modality they were learned from and "
            f"the one that is asked; below each its 95 % interval. Guessing gives {summary['chance']:.1%}."
        )
        say(panel, "about_matrix", about)
        hidden = {"showgrid": False, "zeroline": False, "color": traces.INK}
        layout = {**traces.plain(300), "xaxis": {**hidden, "title": {"text": "asked in"}, "side": "top"}}
        layout |= {"yaxis": {**hidden, "autorange": "reversed"}, "margin": {"l": 90, "r": 10, "t": 60, "b": 10}}
        panel.plot("matrix", layout=layout, config={"displayModeBar": False})
        first, second = summary["modalities"]
        colors = f"Blue: learned from {first}, orange: from {second}; dashed: asked in the other modality."
        say(panel, "about_curves", f"**While names are learned.** {colors}")
        steps = list(summary["curve"]["steps"])
        across = {
            **traces.axis("steps of learning"),
            "type": "log",
            "tickvals": steps,
            "ticktext": list(map(str, steps)),
        }
        layout = {**traces.plain(260), "xaxis": across}
        layout["yaxis"] = {**traces.axis("share recalled"), "range": [0, 1.02]}
        panel.plot("curves", layout=layout, config={"displayModeBar": False})

    def _show_findings(self, panel: types.Object, summary: dict[str, Any]) -> None:
        from audit_plugin.crossmodal.sentences import sentences

        found = sentences(summary)
        say(panel, "findings", "\n".join(f"* {sentence}" for sentence in found))
        if "refused" not in summary:
            say(panel, "limit", "This is about frozen features and small heads, not what a large model would say.")

    def _show_people(
        self, ctx: Any, panel: types.Object, run: str, summary: dict[str, Any], identities: list[dict[str, Any]]
    ) -> None:
        """Those with the largest gaps, and all that stay in one modality."""
        staying = [record for record in identities if record["stays_in"]]
        place = box(panel, "people")
        words = f"**{len(staying):,} of {len(identities):,} identities are recalled in one modality only.**"
        say(place, "count", f"{words} The largest gaps:")
        for at, record in enumerate(identities[:SHOWN]):
            line = place.h_stack(f"who{at}", gap=1, align_y="center")
            words = f"{record['identity']}: {recall_words(record, summary['modalities'])}"
            plain_text(line, f"name{at}", "Identity", words)
            params = {"run": run, "identities": [record["identity"]]}
            line.btn(f"see{at}", label="Show", variant="outlined", on_click=self.on_people, params=params)
        if staying:
            params = {"view": ctx.dataset.get_run_info(run).config.saved_view}
            label = f"Show the samples of all {len(staying):,}"
            place.btn("see_all", label=label, variant="contained", on_click=self.on_saved, params=params)

    def load_transfer(self, ctx: Any) -> None:
        """Send the plots' data."""
        from audit_plugin.fiftyone_io import cross_modal as transfers

        run = transfers.newest_transfer(ctx.dataset)
        if run:
            summary, _ = transfers.transfer_found(ctx.dataset, run)
            ctx.panel.data.set("transfer.matrix", [traces.recall_matrix(summary)])
            ctx.panel.data.set("transfer.curves", traces.recall_curves(summary))

    @guarded
    def on_people(self, ctx: Any) -> None:
        """The samples of an identity in the grid."""
        from audit_plugin.fiftyone_io import cross_modal as transfers

        ctx.ops.set_view(transfers.people_view(ctx.dataset, ctx.params["run"], ctx.params["identities"]))

    @guarded
    def on_saved(self, ctx: Any) -> None:
        """A saved view in the grid."""
        ctx.ops.set_view(name=ctx.params["view"])


def recall_words(record: dict[str, Any], names: list[str]) -> str:
    """`100 % in text, 0 % in image, learned from text`: the way in which an identity crosses least."""
    ways = [(names[0], names[1]), (names[1], names[0])]
    source, target = max(
        ways, key=lambda way: record[f"recall_{way[0]}_{way[0]}"] - record[f"recall_{way[0]}_{way[1]}"]
    )
    own, across = (record[f"recall_{source}_{name}"] for name in (source, target))
    return f"{own:.0%} in {source}, {across:.0%} in {target}, learned from {source}"
