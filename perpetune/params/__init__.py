"""`params.yaml`: its settings, how the file is read, and how its text is changed. Imports nothing that is heavy."""

from perpetune.params.read import as_yaml as as_yaml
from perpetune.params.read import load_params as load_params
from perpetune.params.sections import BaseParams as BaseParams
from perpetune.params.sections import CleanParams as CleanParams
from perpetune.params.sections import CurateParams as CurateParams
from perpetune.params.sections import EconomicsParams as EconomicsParams
from perpetune.params.sections import EvaluateParams as EvaluateParams
from perpetune.params.sections import FetchParams as FetchParams
from perpetune.params.sections import LargerModel as LargerModel
from perpetune.params.sections import LogParams as LogParams
from perpetune.params.sections import LoraParams as LoraParams
from perpetune.params.sections import Method as Method
from perpetune.params.sections import MixParams as MixParams
from perpetune.params.sections import Params as Params
from perpetune.params.sections import PromoteParams as PromoteParams
from perpetune.params.sections import ReferenceParams as ReferenceParams
from perpetune.params.sections import RefreshParams as RefreshParams
from perpetune.params.sections import ReleaseParams as ReleaseParams
from perpetune.params.sections import RemoteModel as RemoteModel
from perpetune.params.sections import ServeParams as ServeParams
from perpetune.params.sections import SplitParams as SplitParams
from perpetune.params.sections import TaskParams as TaskParams
from perpetune.params.sections import TrainParams as TrainParams
from perpetune.params.sections import TuneParams as TuneParams
from perpetune.params.sections import WatchParams as WatchParams
