"""scikit-learn's handwritten digits (8 x 8 pixels, 1797 images): the image set that needs no network.

E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI repository.
"""

from collections.abc import Sequence


def rows(digits: Sequence[int] = tuple(range(10))) -> dict[str, list[dict[str, object]]]:
    """Return train and test rows (`image` (8, 8) uint8, `label`) of the digits asked for.

    Every fifth image of a digit is test. Validation is carved from train by the task.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    if not digits or set(digits) - set(range(10)):
        raise TypeError(f"digits must be some of 0 to 9, not {list(digits)}")
    found = load_digits()
    splits: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    seen = dict.fromkeys(range(10), 0)
    for pixels, digit in zip(found.images, found.target.tolist(), strict=True):
        if digit in digits:
            # 0 to 16 levels in the source; 16 is white.
            image = np.rint(pixels * (255 / 16)).astype(np.uint8)
            split = "test" if seen[digit] % 5 == 4 else "train"
            splits[split].append({"image": image, "label": digit})
            seen[digit] += 1
    return splits
