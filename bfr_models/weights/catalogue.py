"""The published weight files: what they are, where they come from, under which licence. Imports no torch.

Nothing is ever downloaded unasked: `bfr weights fetch NAME` does it, and checks the file before use. A size or sha256
stands here only if it was verified. None means that it was not, and that the file is fetched only if the user trusts it
(`--trust-on-first-use`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from bfr_models.errors import unknown


@dataclass(frozen=True)
class WeightEntry:
    """One published file. `converter` is a "module:function" from its tensors to ours; None: kept as it is."""

    name: str  # method/preset/component, or library/network
    what: str
    origin: str
    size: int | None  # bytes
    sha256: str | None
    licence: str
    licence_url: str
    non_commercial: bool
    converter: str | None = None
    by_hand: str | None = None  # the file's name, where the origin is a page, an archive or another format

    @property
    def group(self) -> str:
        """The method or library."""
        return self.name.partition("/")[0]

    @property
    def stem(self) -> str:
        """Name of the file and its card where we keep them, without a suffix."""
        return self.name.replace("/", "-")

    @property
    def source_file(self) -> str:
        """The publisher's name of the file."""
        return self.by_hand or PurePosixPath(self.origin).name

    @property
    def to_fetch(self) -> str:
        """The name to fetch to have it complete: a method's preset, or one of a library's networks."""
        return self.name.rpartition("/")[0] if self.name.count("/") > 1 else self.name

    @property
    def file(self) -> str:
        """Our name of the file."""
        return self.stem + (".safetensors" if self.converter else PurePosixPath(self.source_file).suffix)


_DIFFACE = "https://github.com/zsyOAOA/DifFace/releases/download/V1.0"
_FACEXLIB = "https://github.com/xinntao/facexlib/releases/download"
_REALESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download"
_TORCH = "https://download.pytorch.org/models"

_S_LAB = ("S-Lab License 1.0", "https://github.com/zsyOAOA/DifFace/blob/master/LICENSE", True)
_RETINAFACE = ("MIT", "https://github.com/biubug6/Pytorch_Retinaface/blob/master/LICENSE.MIT", False)
_ADAFACE = ("MIT", "https://github.com/mk-minchul/AdaFace/blob/master/LICENSE", False)
_INSIGHTFACE = ("MIT", "https://github.com/TreB1eN/InsightFace_Pytorch/blob/master/LICENSE", False)
# facexlib is MIT, but asks to heed the licence of each network's own project; ParseNet's is PSFRGAN.
_PSFRGAN = ("CC BY-NC-SA 4.0", "https://github.com/chaofengc/PSFRGAN/blob/master/LICENSE", True)
_TORCHVISION = ("BSD-3-Clause", "https://github.com/pytorch/vision/blob/main/LICENSE", False)
_COMPVIS = ("MIT", "https://github.com/CompVis/latent-diffusion/blob/main/LICENSE", False)
_OPEN_MODEL_ZOO = ("Apache-2.0", "https://github.com/openvinotoolkit/open_model_zoo/blob/master/LICENSE", False)
_XINNTAO = ("BSD-3-Clause", "https://github.com/xinntao/Real-ESRGAN/blob/master/LICENSE", False)
_INCEPTION = ("Apache-2.0", "https://github.com/mseitzer/pytorch-fid/blob/master/LICENSE", False)

_CONVERSION = "bfr_models.conversion.difface"
_METRICS = "bfr_models.conversion.metric_networks"

# fmt: off
CATALOGUE = (
    WeightEntry("difface/ffhq512/estimator", "DifFace's SwinIR, trained with the L1 loss",
                f"{_DIFFACE}/swinir_restoration512_L1.pth",
                None, None,  # no second source for its size or sha256
                *_S_LAB, f"{_CONVERSION}:convert_estimator"),
    WeightEntry("difface/ffhq512/prior", "DifFace's diffusion prior, FFHQ at 512 px",
                f"{_DIFFACE}/iddpm_ffhq512_ema500000.pth",
                639_362_581, "e16446b14cff4fedf1102ba67945fcced2074500a3fe8fd2bfad5d818928d1d0",
                *_S_LAB, f"{_CONVERSION}:convert_prior"),
    WeightEntry("difface/ffhq512-mse/estimator", "DifFace's first SwinIR, trained with the squared error",
                f"{_DIFFACE}/General_Face_ffhq512.pth",
                90_204_233, "62fb6605702e6ad35712299a23cc19ea7cd2fb4bbd50a8080fcefa8ad2620c71",
                *_S_LAB, f"{_CONVERSION}:convert_estimator"),
    WeightEntry("difface/inpaint256/estimator", "DifFace's LaMa, for inpainting at 256 px",
                f"{_DIFFACE}/lama_inpainting256.pth",
                None, None,
                *_S_LAB, f"{_CONVERSION}:convert_inpaint_estimator"),
    WeightEntry("difface/inpaint256/prior", "DifFace's diffusion prior, FFHQ at 256 px",
                f"{_DIFFACE}/iddpm_ffhq256_ema750000.pth",
                None, None,
                *_S_LAB, f"{_CONVERSION}:convert_inpaint_prior"),

    WeightEntry("clr_face/ffhq512/vqgan", "vq-f4 of latent diffusion, OpenImages: a start for CLR-Face's VQGAN; import "
                "the model.ckpt in the archive",
                "https://ommer-lab.com/files/latent-diffusion/vq-f4.zip",
                None, None,
                *_COMPVIS, "bfr_models.conversion.vqgan:convert_first_stage", by_hand="model.ckpt"),

    WeightEntry("facexlib/retinaface-resnet50", "RetinaFace, the face detector of facexlib",
                f"{_FACEXLIB}/v0.1.0/detection_Resnet50_Final.pth",
                109_497_761, "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
                *_RETINAFACE),
    WeightEntry("facexlib/retinaface-mobilenet", "RetinaFace, small and fast (MobileNet 0.25)",
                f"{_FACEXLIB}/v0.1.0/detection_mobilenet0.25_Final.pth",
                1_789_735, "2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
                *_RETINAFACE),
    WeightEntry("facexlib/arcface", "ArcFace IR-SE-50, the face recogniser of facexlib",
                f"{_FACEXLIB}/v0.1.0/recognition_arcface_ir_se50.pth",
                175_367_323, "a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28",
                *_INSIGHTFACE, "bfr_models.conversion.arcface:convert_arcface"),
    WeightEntry("facexlib/parsenet", "ParseNet, which tells skin from hair and background",
                f"{_FACEXLIB}/v0.2.2/parsing_parsenet.pth",
                85_331_193, "3d558d8d0e42c20224f13cf5a29c79eba2d59913419f945545d8cf7b72920de2",
                *_PSFRGAN),

    WeightEntry("adaface/ir50-ms1mv2", "AdaFace IR-50, the face recogniser of the NTIRE 2025 challenge",
                "https://drive.google.com/file/d/1eUaSHG4pGlIZK7hBkqjyp2fc2epKoBvI/view",
                None, None,
                *_ADAFACE, "bfr_models.conversion.adaface:convert_adaface", by_hand="adaface_ir50_ms1mv2.ckpt"),

    WeightEntry("recogniser/face-reidentification-retail-0095", "Open Model Zoo's MobileFaceNet, a recogniser to guide "
                "and train by; published for OpenVINO, imported from an ONNX file",
                "https://storage.openvinotoolkit.org/repositories/open_model_zoo/2023.0/models_bin/1/"
                "face-reidentification-retail-0095/FP32/face-reidentification-retail-0095.xml",
                None, None,
                *_OPEN_MODEL_ZOO, "bfr_models.conversion.mobile_face:convert_recogniser",
                by_hand="face-reidentification-retail-0095.onnx"),

    WeightEntry("realesrgan/x2plus", "Real-ESRGAN x2plus, which enlarges a photo's background twice",
                f"{_REALESRGAN}/v0.2.1/RealESRGAN_x2plus.pth",
                67_061_725, "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
                *_XINNTAO, "bfr_models.conversion.realesrgan:convert_x2plus"),
    WeightEntry("realesrgan/x4plus", "Real-ESRGAN x4plus, which enlarges it four times",
                f"{_REALESRGAN}/v0.1.0/RealESRGAN_x4plus.pth",
                67_040_989, "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
                *_XINNTAO, "bfr_models.conversion.realesrgan:convert_x4plus"),

    WeightEntry("lpips/alexnet", "AlexNet (ImageNet), the backbone of LPIPS-Alex",
                f"{_TORCH}/alexnet-owt-7be5be79.pth",
                244_408_911, "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
                *_TORCHVISION, f"{_METRICS}:convert_alexnet"),
    WeightEntry("lpips/vgg16", "VGG-16 (ImageNet), the backbone of LPIPS-VGG",
                f"{_TORCH}/vgg16-397923af.pth",
                553_433_881, "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
                *_TORCHVISION, f"{_METRICS}:convert_vgg16"),
    WeightEntry("lpips/squeezenet", "SqueezeNet 1.1 (ImageNet), the backbone of LPIPS-Squeeze",
                f"{_TORCH}/squeezenet1_1-b8a52dc0.pth",
                4_958_839, "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
                *_TORCHVISION, f"{_METRICS}:convert_squeezenet"),

    WeightEntry("fid/inception", "TensorFlow's Inception of 2015-12-05, as pytorch-fid ports it: the network of FID",
                "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
                "pt_inception-2015-12-05-6726825d.pth",
                95_628_359, "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
                *_INCEPTION, f"{_METRICS}:convert_inception"),
)
# fmt: on


def entries(name: str) -> list[WeightEntry]:
    """The entry of that name, or all below it: `difface/ffhq512` has two. UsageError when there is none."""
    found = [entry for entry in CATALOGUE if f"{entry.name}/".startswith(f"{name.rstrip('/')}/")]
    if not found:
        raise unknown("weights", name, [entry.name for entry in CATALOGUE])
    return found


def entry_of(stem: str) -> WeightEntry | None:
    """The entry of the file with this stem in our folders."""
    return next((entry for entry in CATALOGUE if entry.stem == stem), None)
