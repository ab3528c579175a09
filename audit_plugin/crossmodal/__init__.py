"""Cross-modality memorization (after Wen et al., arXiv 2506.05198): learned in one modality, recalled in the other."""
