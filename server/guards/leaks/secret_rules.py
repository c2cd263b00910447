"""What providers' keys and tokens look like: how each begins, and what follows.

Written from the providers' own descriptions of their formats. A rule's heads are literal; a tail
that has no greatest length goes on for as long as its alphabet does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

__all__ = ["SECRET_RULES", "SecretRule"]

_ALNUM: Final = "A-Za-z0-9"
_WORD: Final = "A-Za-z0-9_"
_URL: Final = "A-Za-z0-9_-"
_HEX: Final = "a-f0-9"
_BASE64: Final = "A-Za-z0-9+/=_-"


@dataclass(frozen=True, slots=True)
class SecretRule:
    """One format.

    Args:
        name: Provider and kind.
        heads: How it begins: one of these, at least three characters each.
        alphabet: Of what follows, as in a character class.
        least: Characters that follow, at least.
        most: At most. None: as many as there are.
        then: What has to follow these, as a pattern that can't go back.

    """

    name: str
    heads: tuple[str, ...]
    alphabet: str
    least: int
    most: int | None = None
    then: str = ""
    pattern: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        heads = "|".join(map(re.escape, self.heads))
        count = f"{{{self.least},{'' if self.most is None else self.most}}}+"
        # What has a length ends there: one character more of its kind, and it is something else.
        end = f"(?![{self.alphabet}])" if self.most is not None and not self.then else ""
        pattern = rf"(?:{heads})[{self.alphabet}]{count}{self.then}{end}"
        object.__setattr__(self, "pattern", re.compile(pattern, re.ASCII))

    @property
    def goes_on(self) -> bool:
        """Whether it has no greatest length."""
        return self.most is None


def _exact(name: str, heads: str, alphabet: str, length: int) -> SecretRule:
    return SecretRule(name, tuple(heads.split()), alphabet, length, length)


def _least(name: str, heads: str, alphabet: str, least: int) -> SecretRule:
    return SecretRule(name, tuple(heads.split()), alphabet, least)


SECRET_RULES: Final = (
    # Models and their hosts
    _least("anthropic", "sk-ant-", _URL, 32),
    _least("openai", "sk-", _URL, 20),
    _exact("huggingface", "hf_ api_org_", _ALNUM, 34),
    _least("replicate", "r8_", _ALNUM, 37),
    _least("groq", "gsk_", _ALNUM, 40),
    _least("perplexity", "pplx-", _ALNUM, 40),
    _least("xai", "xai-", _ALNUM, 70),
    _least("fireworks", "fw_", _ALNUM, 24),
    _least("nvidia", "nvapi-", _URL, 60),
    _least("tavily", "tvly-", _URL, 20),
    _least("langsmith", "lsv2_pt_ lsv2_sk_", _WORD, 40),
    _least("unbroken", "ub_ ub-", _URL, 32),
    _least("unbroken_short_lived", "ek_ tk_", _URL, 43),
    SecretRule("unbroken_resume", ("rt_",), _HEX, 44, 44, rf"_[{_URL}]{{22}}+"),
    # Clouds
    _exact("aws_access_key", "AKIA ASIA ABIA ACCA", "A-Z2-7", 16),
    _least("aws_bedrock", "ABSKQmVkcm9ja0FQSUtleS", _BASE64, 24),
    _exact("google_api_key", "AIza", _URL, 35),
    _least("google_oauth_secret", "GOCSPX-", _URL, 28),
    _least("google_oauth_token", "ya29.", _URL, 40),
    _least("azure_connection", "AccountKey=", _BASE64, 60),
    _least("digitalocean", "dop_v1_ doo_v1_ dor_v1_", _HEX, 64),
    _exact("alibaba", "LTAI", _ALNUM, 20),
    _exact("tencent", "AKID", _ALNUM, 32),
    _least("flyio", "FlyV1 fo1_ fm2_", _BASE64, 40),
    _exact("heroku", "HRKU-AA", _URL, 58),
    _least("scalingo", "tk-us-", _URL, 48),
    # Code and packages
    _least("github", "ghp_ gho_ ghu_ ghs_ ghr_", _ALNUM, 36),
    _least("github_fine_grained", "github_pat_", _WORD, 60),
    _least("gitlab", "glpat- gldt- glrt- glcbt- glptt- glft- glsoat- glimt- glagent-", _URL, 20),
    _least("bitbucket", "ATBB ATCTT3xFfG", _BASE64, 24),
    _least("atlassian", "ATATT3", _BASE64, 60),
    _exact("npm", "npm_", _ALNUM, 36),
    _least("pypi", "pypi-AgEI", _URL, 50),
    _exact("rubygems", "rubygems_", _HEX, 48),
    _least("docker", "dckr_pat_ dckr_oat_", _URL, 27),
    _exact("clojars", "CLOJARS_", _ALNUM, 60),
    _exact("crates", "cio", _ALNUM, 32),
    _least("jfrog", "AKCp cmVmdGtuO", _ALNUM, 56),
    _exact("postman", "PMAK-", "a-f0-9-", 59),
    _least("readme", "rdme_", "a-z0-9", 70),
    _least("sonarqube", "squ_ sqp_ sqa_", _HEX, 40),
    _least("hashicorp_vault", "hvs. hvb. hvr.", _URL, 90),
    _least("doppler", "dp.pt. dp.st. dp.ct. dp.sa.", _ALNUM, 40),
    _least("infracost", "ico-", _ALNUM, 32),
    _least("pulumi", "pul-", _HEX, 40),
    _least("age", "AGE-SECRET-KEY-1", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L", 58),
    _least("onepassword", "ops_eyJ", _BASE64, 200),
    # Messages
    _least("slack", "xoxb- xoxp- xoxa- xoxr- xoxs- xoxe- xoxo- xapp- xoxe.", "A-Za-z0-9.-", 20),
    _least("slack_webhook", "hooks.slack.com/services/", "A-Za-z0-9/_", 40),
    _least("discord_webhook", "discord.com/api/webhooks/", "A-Za-z0-9/_-", 60),
    _least("teams_webhook", "webhook.office.com/webhookb2/", "A-Za-z0-9@/_-", 60),
    SecretRule("sendgrid", ("SG.",), _URL, 16, 32, rf"\.[{_URL}]{{32,}}+"),
    _exact("mailgun", "key-", _HEX, 32),
    _least("brevo", "xkeysib- xsmtpsib-", "a-zA-Z0-9-", 64),
    # Money
    _least("stripe", "sk_live_ sk_test_ rk_live_ rk_test_ whsec_", _ALNUM, 16),
    _least("square", "sq0atp- sq0csp- EAAA", _URL, 22),
    _least("shopify", "shpat_ shpca_ shppa_ shpss_", "a-fA-F0-9", 32),
    _least("paypal_braintree", "access_token$production$ access_token$sandbox$", "a-z0-9$", 40),
    _least("flutterwave", "FLWSECK_TEST- FLWSECK-", "a-zA-Z0-9-", 12),
    _least("razorpay", "rzp_live_ rzp_test_", _ALNUM, 14),
    _least("plaid", "access-sandbox- access-development- access-production-", "a-f0-9-", 32),
    # What watches, and what stores
    _least("newrelic", "NRAK- NRJS- NRRA- NRII-", _URL, 19),
    _least("sentry", "sntrys_ sntryu_", _BASE64, 40),
    _least("grafana", "glc_ glsa_ eyJrIjoi", _BASE64, 32),
    _least("dynatrace", "dt0c01. dt0s01.", "A-Z0-9.", 64),
    _exact("databricks", "dapi", _HEX, 32),
    _least("planetscale", "pscale_tkn_ pscale_pw_ pscale_oauth_", "A-Za-z0-9_.-", 32),
    _least("supabase", "sbp_ sb_secret_", _WORD, 30),
    SecretRule("airtable", ("pat",), _ALNUM, 14, 14, rf"\.[{_HEX}]{{64}}+(?![{_ALNUM}])"),
    _least("prefect", "pnu_ pnb_", _ALNUM, 36),
    _least("lob", "live_ test_", _HEX, 35),
    _exact("linear", "lin_api_", _ALNUM, 40),
    _least("notion", "ntn_ secret_", _ALNUM, 43),
    _least("figma", "figd_ figdr_", _URL, 40),
    _least("contentful", "CFPAT-", _URL, 43),
    _least("mapbox", "sk.eyJ", "A-Za-z0-9_.-", 40),
    _least("facebook", "EAACEdEose0cBA EAAG", _ALNUM, 40),
    _least("cloudflare_ca", "v1.0-", "a-f0-9-", 160),
    # Tokens that anybody may issue: a header and a body at the least
    SecretRule("jwt", ("eyJ",), _URL, 14, None, rf"\.eyJ[{_URL}]{{10,}}+(?:\.[{_URL}]*+)?"),
)
"""In no order that matters: the longest match counts."""
