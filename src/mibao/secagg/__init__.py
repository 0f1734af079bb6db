"""Sums without seeing the addends: masking schemes, their session logic, and a simulator of whole rounds."""

from mibao.secagg.certified_roster import Certificate, Role, certified_committee, certified_roster, certify
from mibao.secagg.encrypted_sum import HolderSession
from mibao.secagg.encrypted_sum_parties import EncryptedSumClient, EncryptedSumServer, KeyHolder
from mibao.secagg.journal import FileJournal, Journal, MemoryJournal
from mibao.secagg.masking import (
    MaskingClient,
    MaskingMember,
    MaskingServer,
    Phase,
    SecureSum,
    Session,
    Trust,
    default_threshold,
)
from mibao.secagg.masking_pairwise import client_randomness_bytes
from mibao.secagg.masking_pairwise_client import PairwiseClient
from mibao.secagg.masking_pairwise_server import PairwiseServer
from mibao.secagg.masking_rlwe import Committee, CommitteeSession, Member
from mibao.secagg.masking_rlwe_client import RlweClient
from mibao.secagg.masking_rlwe_member import CommitteeMember
from mibao.secagg.masking_rlwe_server import RlweServer
from mibao.secagg.planning import GraphPlan, plan_graph, require_safe_committee
from mibao.secagg.rlwe_parameters import ParameterSet, parameter_set, smallest_set
from mibao.secagg.roster import Roster
from mibao.secagg.simulation import run_round, simulate_sum
from mibao.secagg.vector_codec import VectorCodec

__all__ = [
    "Certificate",
    "Committee",
    "CommitteeMember",
    "CommitteeSession",
    "EncryptedSumClient",
    "EncryptedSumServer",
    "FileJournal",
    "GraphPlan",
    "HolderSession",
    "Journal",
    "KeyHolder",
    "MaskingClient",
    "MaskingMember",
    "MaskingServer",
    "Member",
    "MemoryJournal",
    "PairwiseClient",
    "PairwiseServer",
    "ParameterSet",
    "Phase",
    "RlweClient",
    "RlweServer",
    "Role",
    "Roster",
    "SecureSum",
    "Session",
    "Trust",
    "VectorCodec",
    "certified_committee",
    "certified_roster",
    "certify",
    "client_randomness_bytes",
    "default_threshold",
    "parameter_set",
    "plan_graph",
    "require_safe_committee",
    "run_round",
    "simulate_sum",
    "smallest_set",
]
