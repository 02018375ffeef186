"""The few statistics that the figures use."""

import statistics

START_UP_SHARE = 0.1  # the honest reading leaves the first tenth of a run out: start-up, memory growth, warm caches


def steady(times):
    """`times` without start-up; never empty for a non-empty input."""
    return times[int(len(times) * START_UP_SHARE):]


def summary(times_ms):
    """Total, first, medians and extremes of a run's iteration times."""
    later = times_ms[1:] or times_ms
    late = times_ms[20:] or times_ms
    return {
        "n": len(times_ms),
        "total_s": sum(times_ms) / 1000.0,
        "first_ms": times_ms[0],
        "median_ms": statistics.median(times_ms),
        "steady_median_ms": statistics.median(steady(times_ms)),
        "mean_ms_skip20": statistics.fmean(late),
        "min_ms": min(times_ms),
        "max_ms_skip1": max(later),
        "last_ms": times_ms[-1],
    }


def ratio(numerator, denominator):
    """numerator / denominator, None where either is absent."""
    return None if numerator is None or denominator is None else numerator / denominator


def mape(estimates, values):
    """Mean absolute error relative to the values, as a fraction."""
    return statistics.fmean(abs(e - v) / v for e, v in zip(estimates, values))


def r2(estimates, values):
    """Share of variance explained by the estimates as they are (against y = x); None for constant values."""
    mean = statistics.fmean(values)
    spread = sum((v - mean) ** 2 for v in values)
    return None if spread == 0 else 1 - sum((v - e) ** 2 for e, v in zip(estimates, values)) / spread


def pearson(xs, ys):
    """Correlation; None for a constant."""
    mx, my = statistics.fmean(xs), statistics.fmean(ys)
    sx, sy = sum((x - mx) ** 2 for x in xs), sum((y - my) ** 2 for y in ys)
    if sx == 0 or sy == 0:
        return None
    return sum((x - mx) * (y - my) for x, y in zip(xs, ys)) / (sx * sy) ** 0.5


def line_fit(xs, ys):
    """(slope, intercept) by least squares; slope 0 for constant xs."""
    mx, my = statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((x - mx) ** 2 for x in xs)
    slope = sum((x - mx) * (y - my) for x, y in zip(xs, ys)) / spread if spread else 0.0
    return slope, my - slope * mx
