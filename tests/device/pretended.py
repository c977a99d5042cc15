"""A plugin of pytest that makes the pretended device the accelerator."""

from device.pretend import Device

DEVICE = Device()
