"""What a query has cost, as the member `stats` of Prometheus' answers, and under `tabor` what is Tabor's own."""

from __future__ import annotations

from typing import Any

import orjson

from query.engine.budget import Budget
from query.engine.engine import QueryResult
from query.running import rounded


def statistics(result: QueryResult, budget: Budget, kind: str) -> bytes:
    """JSON of what `stats=kind` asks for; nothing for ''.

    Of Prometheus' timings those that have no counterpart are 0: results come sorted from the engine. Its sample
    counts have Prometheus' meaning, but a native histogram counts as one sample.
    """
    if not kind:
        return b""
    stages, tally = budget.stages.seconds, budget.tally
    waited_s = stages.get("wait", 0.0)
    prepared_s = stages.get("select", 0.0) + stages.get("nodes", 0.0)
    total_s = sum(seconds for stage, seconds in stages.items() if stage != "encode")
    at_steps = result.stats.samples_at_steps
    samples: dict[str, Any] = {
        "totalQueryableSamples": 0 if at_steps is None else int(at_steps.sum()),
        "peakSamples": result.stats.peak_samples,
    }
    if kind == "all" and at_steps is not None:
        pairs = zip(result.steps.tolist(), at_steps.tolist(), strict=True)
        samples["totalQueryableSamplesPerStep"] = [[step / 1000, n] for step, n in pairs]
    timings = {
        "evalTotalTime": total_s - waited_s,
        "resultSortTime": 0.0,
        "queryPreparationTime": prepared_s,
        "innerEvalTime": stages.get("compute", 0.0),
        "execQueueTime": waited_s,
        "execTotalTime": total_s,
    }
    own = {
        "seriesRead": result.stats.series,
        "samplesRead": result.stats.samples,
        "partitions": tally.partitions,
        "partitionsMissing": len(budget.missing),
        "nodesAsked": len(tally.nodes),
        "nodeReads": tally.node_reads,
        "hedges": tally.hedges,
        "bytesReceived": tally.received_bytes,
        "bytesRead": tally.block_bytes,
        "stages": rounded(stages),
    }
    return orjson.dumps({"timings": rounded(timings), "samples": samples, "tabor": own})
