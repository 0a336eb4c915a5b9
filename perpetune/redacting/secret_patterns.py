"""Secrets by their format: keys and tokens of providers, private keys, and values that are named as secrets.

The formats are those that the providers document and gitleaks' rules (MIT) list. Of detect-secrets 1.5.0, whose last
release is of 2024, the patterns know neither Anthropic, Google and Hugging Face keys nor GitHub's fine-grained tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from perpetune.redacting.found import Found

NAME = "SECRET"

# What stands between a word boundary and another, unless a pattern says otherwise.
_TOKENS = (
    r"ppt_[\w-]{43}",  # our own keys: perpetune.prediction_log.api_keys
    # OpenAI, Anthropic, OpenRouter, DeepSeek and others; Langfuse has UUIDs
    r"sk-(?:[a-z0-9]{2,12}-)*(?=\w*\d)(?=\w*[A-Za-z])\w{16,}(?:-[\w-]*\w)?",
    r"[sp]k-lf-[0-9a-f]{8}-[0-9a-f-]{27}",
    r"(?:A3T[A-Z0-9]|AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",  # AWS
    r"gh[oprsu]_[A-Za-z0-9]{36,}",  # GitHub
    r"github_pat_\w{22,}",
    r"gl(?:pat|dt|rt|ft|ptt|cbt|imt|soat|agent|oas)-[\w-]{20,}",  # GitLab
    r"eyJ[\w-]{10,}\.(?:eyJ)?[\w-]{10,}(?:\.[\w-]*)?",  # JSON Web Tokens
    r"xox[abeoprs]-(?:\d+-)*[A-Za-z0-9-]{10,}",  # Slack
    r"xapp-\d-[A-Z0-9]+-\d+-[0-9a-f]+",
    r"AIza[\w-]{35}",  # Google
    r"ya29\.[\w-]{20,}",
    r"GOCSPX-[\w-]{28}",
    r"hf_[A-Za-z]{34}",  # Hugging Face
    r"hf_[A-Za-z0-9]{30,}",
    r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"whsec_[A-Za-z0-9+/=]{24,}",
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-Ag[EN][\w-]{50,}",
    r"dckr_(?:pat|oat)_[\w-]{20,}",  # Docker
    r"SG\.[\w-]{22}\.[\w-]{43}",  # SendGrid
    r"S[KG][0-9a-f]{32}",  # Twilio
    r"[0-9a-f]{32}-us\d{1,2}",  # Mailchimp
    r"sq0(?:atp|csp)-[\w-]{22,43}",  # Square
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",  # Shopify
    r"dapi[0-9a-f]{32}(?:-\d)?",  # Databricks
    r"do[opr]_v1_[0-9a-f]{64}",  # DigitalOcean
    r"hv[sbr]\.[\w-]{24,}",  # Vault
    r"(?:gsk|xai|pplx|r8|lin_api|ntn|secret|figd|glsa|sntrys|sntryu|fw|nvapi|tvly|csk|pat)[_-](?=\w*\d)\w{32,}",
    r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
    r"\d{8,10}:AA[\w-]{33}",  # Telegram
    r"[MNO][A-Za-z\d]{23,25}\.[\w-]{6}\.[\w-]{27,38}",  # Discord
)
_TOKEN = re.compile(rf"(?<![\w./-])(?:{'|'.join(_TOKENS)})(?![\w])", re.ASCII)
_WEBHOOK = re.compile(r"(?<=://)hooks\.slack\.com/(?:services|workflows|triggers)/\w+/[\w/]+", re.ASCII)
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_BEARER = re.compile(r"\bbearer\s+(?=\S*\d)([\w.~+/-]{20,}=*)", re.IGNORECASE | re.ASCII)
_NAMES = (
    r"(?:api|access|secret|private|account|auth|client|encryption)[ _-]?(?:access[ _-]?)?(?:key|token|secret)"
    r"|password|passwd|passphrase|pwd|token|secret"
)
# A value has a letter and a digit: "password: forgotten" is none.
_NAMED = re.compile(
    rf"(?:{_NAMES})\w*[\"']?\s*(?:[:=]|=>|:=)\s*[\"']?"
    r"((?=[^\s\"',;<>]*\d)(?=[^\s\"',;<>]*[A-Za-z])[^\s\"',;<>]{8,})",
    re.IGNORECASE,
)
_WHOLE, _VALUE = 0, 1  # the group of a pattern that is the secret
_PATTERNS = ((_TOKEN, _WHOLE), (_WEBHOOK, _WHOLE), (_PRIVATE_KEY, _WHOLE), (_BEARER, _VALUE), (_NAMED, _VALUE))


def find_secrets(text: str) -> Iterator[Found]:
    """The secrets in a text."""
    for pattern, group in _PATTERNS:
        for match in pattern.finditer(text):
            yield Found(match.start(group), match.end(group), 1.0, NAME)


def is_named_secret(name: str, value: str) -> bool:
    """Whether a value is called a secret by its name, as in `{"password": "..."}`."""
    found = _NAMED.search(f"{name}={value}")
    return found is not None and found.end() == len(name) + 1 + len(value)
