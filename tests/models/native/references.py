"""What the kernels compute, in float64, written down as plainly as it goes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

Pixels = tuple[np.ndarray, ...]
"""The rows and columns of some pixels, as indices that broadcast."""


@dataclass(frozen=True)
class Window:
    """How a window goes over an image."""

    size: tuple[int, int]
    stride: int
    top: int
    left: int

    def numbers(self) -> tuple[int, int, int]:
        """Returns what handlers are told of it; its size is that of the kernel."""
        return (self.stride, self.top, self.left)

    def meetings(self, image: tuple[int, int], output: tuple[int, int]) -> Iterator[tuple[int, int, Pixels, Pixels]]:
        """Yields each tap (row, column) with the pixels of the output and of the image that meet at it."""
        for up in range(self.size[0]):
            for across in range(self.size[1]):
                rows, columns = np.arange(output[0]), np.arange(output[1])
                y, x = rows * self.stride - self.top + up, columns * self.stride - self.left + across
                inside_y, inside_x = (y >= 0) & (y < image[0]), (x >= 0) & (x < image[1])
                yield up, across, np.ix_(rows[inside_y], columns[inside_x]), np.ix_(y[inside_y], x[inside_x])


def convolution(x: np.ndarray, kernel: np.ndarray, output: tuple[int, int], window: Window) -> np.ndarray:
    """Returns the convolution [B, *output, O] of `x` [B, H, W, I] by `kernel` [k, k, I, O]."""
    y = np.zeros((x.shape[0], *output, kernel.shape[3]))
    for up, across, there, here in window.meetings(x.shape[1:3], output):
        y[:, *there] += x[:, *here] @ kernel[up, across]
    return y


def convolution_gradients(
    x: np.ndarray, kernel: np.ndarray, g: np.ndarray, window: Window
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the gradients of `x` and `kernel` for the gradient `g` of the convolution."""
    of_x, of_kernel = np.zeros(x.shape), np.zeros(kernel.shape)
    for up, across, there, here in window.meetings(x.shape[1:3], g.shape[1:3]):
        of_x[:, *here] += g[:, *there] @ kernel[up, across].T
        of_kernel[up, across] = np.einsum("bhwi,bhwo->io", x[:, *here], g[:, *there])
    return of_x, of_kernel


def depthwise(x: np.ndarray, kernel: np.ndarray, output: tuple[int, int], window: Window) -> np.ndarray:
    """Returns the convolution [B, *output, C] of each channel of `x` [B, H, W, C] by its `kernel` [k, k, C]."""
    y = np.zeros((x.shape[0], *output, x.shape[3]))
    for up, across, there, here in window.meetings(x.shape[1:3], output):
        y[:, *there] += x[:, *here] * kernel[up, across]
    return y


def depthwise_gradients(
    x: np.ndarray, kernel: np.ndarray, g: np.ndarray, window: Window
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the gradients of `x` and `kernel` for the gradient `g` of the depthwise convolution."""
    of_x, of_kernel = np.zeros(x.shape), np.zeros(kernel.shape)
    for up, across, there, here in window.meetings(x.shape[1:3], g.shape[1:3]):
        of_x[:, *here] += g[:, *there] * kernel[up, across]
        of_kernel[up, across] = (x[:, *here] * g[:, *there]).sum((0, 1, 2))
    return of_x, of_kernel


def pooled(x: np.ndarray, output: tuple[int, int], window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Returns the largest value of every window of `x` [B, H, W, C], and the number of the tap that it first met."""
    largest, places = np.full((x.shape[0], *output, x.shape[3]), -np.inf), np.zeros((x.shape[0], *output, x.shape[3]))
    for up, across, there, here in window.meetings(x.shape[1:3], output):
        is_larger = x[:, *here] > largest[:, *there]
        places[:, *there] = np.where(is_larger, up * window.size[1] + across, places[:, *there])
        largest[:, *there] = np.maximum(x[:, *here], largest[:, *there])
    return largest, places


def pooled_gradient(x: np.ndarray, places: np.ndarray, g: np.ndarray, window: Window) -> np.ndarray:
    """Returns the gradient of `x` for the gradient `g` of the largest values, which came from `places`."""
    of_x = np.zeros(x.shape)
    for up, across, there, here in window.meetings(x.shape[1:3], g.shape[1:3]):
        of_x[:, *here] += g[:, *there] * (places[:, *there] == up * window.size[1] + across)
    return of_x


def pixels_inside(image: tuple[int, int], output: tuple[int, int], window: Window) -> np.ndarray:
    """Returns how many pixels of every window lie in the image: [*output, 1]."""
    count = np.zeros((*output, 1))
    for _, _, there, _ in window.meetings(image, output):
        count[there] += 1
    return count


def activated(x: np.ndarray, activation: str) -> np.ndarray:
    """Returns `x` activated."""
    if activation == "relu6":
        return np.clip(x, 0, 6)
    if activation == "relu":
        return np.maximum(x, 0)
    return x / (1 + np.exp(-x)) if activation == "silu" else x


def slope(x: np.ndarray, activation: str) -> np.ndarray:
    """Returns the derivative of the activation at `x`."""
    if activation == "relu6":
        return ((x > 0) & (x < 6)).astype(float)
    if activation == "relu":
        return (x > 0).astype(float)
    share = 1 / (1 + np.exp(-x))
    return share * (1 + x * (1 - share)) if activation == "silu" else np.ones_like(x)
