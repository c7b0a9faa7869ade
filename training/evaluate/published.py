"""What has been published of DSR-Bench, to stand beside a measurement of ours."""

from __future__ import annotations

SOURCE = "arXiv 2512.20557, the table of results on DSR-Bench"
ORDER = (
    "abs_dis", "abs_dir", "abs_ori", "abs_spd", "abs_spd_comp", "abs_dir_pred",
    "rel_dis", "rel_dir", "rel_ori", "rel_spd", "rel_spd_comp", "rel_dir_pred", "non_temp",
)  # fmt: skip

# Accuracy in percent: types in the order of `ORDER`, then over all questions.
PUBLISHED: dict[str, tuple[float, ...]] = {
    "Qwen2.5-VL-7B": (18.8, 15.3, 14.6, 42.8, 29.0, 19.4, 31.8, 19.3, 11.1, 22.2, 19.2, 20.2, 30.1, 23.5),
    "Gemini-2.5-Pro": (20.0, 44.6, 53.6, 27.3, 38.7, 30.5, 23.2, 32.9, 43.2, 17.1, 28.5, 27.9, 34.3, 31.7),
    "VG-LLM": (55.2, 32.3, 58.5, 57.1, 51.6, 32.2, 56.0, 36.3, 32.0, 30.3, 32.1, 29.1, 27.9, 38.4),
    "GSM + 50K": (87.0, 73.8, 84.1, 73.8, 72.0, 35.5, 75.8, 76.1, 77.7, 60.6, 37.1, 35.1, 46.4, 58.9),
}
PUBLISHED_ITEMS = (85, 65, 82, 84, 93, 118, 116, 88, 81, 99, 140, 168, 265, 1484)
