"""A panel of estimated against measured times, as figure 11 has it, and what a calibration makes of it."""

from plotting.statistics import line_fit, mape, pearson, r2


def panel(title, naive_ms, est_ms, real_ms):
    """(the panel's numbers, what the second page adds). Calibrated = a line fitted on the even points, judged on the odd
    ones. naive_ms: the estimate that knows nothing of the data, or None."""
    slope, intercept = line_fit(est_ms[0::2], real_ms[0::2])
    judged, truth = [slope * e + intercept for e in est_ms[1::2]], real_ms[1::2]
    shown = {
        "title": title, "naive_ms": naive_ms, "estimated_ms": est_ms, "real_ms": real_ms,
        "mape": mape(est_ms, real_ms), "r2": r2(est_ms, real_ms),
        "mape_calibrated": mape(judged, truth), "r2_calibrated": r2(judged, truth)}
    more = {
        "title": title, "n_points": len(real_ms), "pearson": pearson(est_ms, real_ms),
        "max_ape": max(abs(e - v) / v for e, v in zip(est_ms, real_ms)),
        "naive_mape": None if naive_ms is None else mape([naive_ms] * len(real_ms), real_ms),
        "slope": slope, "intercept_ms": intercept, "calibrated_ms": judged,
        "est_min": min(est_ms), "est_max": max(est_ms), "real_min": min(real_ms), "real_max": max(real_ms)}
    return shown, more
