"""Makes ``twistd imagefarm`` known. Nothing else belongs here: every twistd start imports it."""

from twisted.application.service import ServiceMaker

imagefarm = ServiceMaker(
    "imagefarm",
    "imagefarm.tap",
    "An image origin: load balancer, static slaves and resizer.",
    "imagefarm",
)
