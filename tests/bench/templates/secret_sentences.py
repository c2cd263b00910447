"""What stands around secrets: «name» stands for one of that kind.

In two parts: rules were mended with the first before one's eyes, and weren't for the second.
"""

from __future__ import annotations

from typing import Final

__all__ = ["LOOKED_AT", "UNSEEN"]

LOOKED_AT: Final = (
    "Put this into `~/.aws/credentials`:\n\n```ini\n[default]\naws_access_key_id = «aws_id»\n"
    "aws_secret_access_key = «aws_secret»\nregion = eu-west-1\n```\n",
    "I pushed with «github», and the commit is «sha».",
    "SLACK_BOT_TOKEN=«slack»\nSLACK_CHANNEL=C«digits9»\nRELEASE=«version»\n",
    "Post it to https://«slack_hook» and look at run «digits10».",
    '{"stripe_key": "«stripe»", "order": "«order»", "request_id": "«uuid»"}\n',
    "The Maps key is «google»; the page's bundle is app.«file_hash».js.",
    "export OPENAI_API_KEY=«openai»\nexport OPENAI_MAX_TOKENS=4096\n",
    "Hier ist der Schlüssel für Claude: «anthropic». Die Rechnung ist «digits9».",
    "The cookie was `session=«jwt»`, set at «time».",
    "Voici la clé privée :\n\n«pem»\n\nEmpreinte : «md5»\n",
    'password = "«password»"\nport = 5432\nversion = "«version»"\n',
    "DATABASE_URL=postgres://app:«plain_password»@db.internal:5432/shop\nDATABASE_POOL=20\n",
    "```yaml\ndatabase:\n  user: app\n  password: «password»\n  image: postgres@«image_digest»\n```\n",
    '{"api_key": "«api_key»", "idempotency_key": "«uuid»", "etag": "«md5»"}\n',
    'curl -H "Authorization: Bearer «api_key»" https://api.example.com/v2/orders/«digits9»\n',
    "| Service | Key | Commit |\n|---|---|---|\n| GitHub | «github» | «sha» |\n| Stripe | `«stripe»` | «short_sha» |\n",
    "Set `password: «placeholder»`, `api_key = «placeholder»` and `token: «placeholder»`; then run version «version».",
    "commit «sha»\nmerge «short_sha»\ndigest «image_digest»\nintegrity «integrity»\nid «uuid»\n",
    "El token de acceso caduca el «iso_date»; la contraseña debe tener 12 caracteres y la sesión es «uuid».",
    'const client = new Client({ clientSecret: "«api_key»", requestId: "«uuid»", retries: 3 });',
    "Je Zugangsdaten: Access Key «aws_id», Region eu-central-1, Konto «digits12».",
    'AWS_SECRET_ACCESS_KEY="«aws_secret»" AWS_REGION=us-east-1 ./deploy.sh «short_sha»',
    "git clone https://oauth2:«github»@github.com/acme/shop.git && git checkout «sha»",
    '{"level": "info", "msg": "posted", "token": "«slack»", "ts": "«digits10».«digits6»", "trace": "«md5»"}\n',
    "1. webhook: https://«slack_hook»\n2. channel: #ops\n3. run: «uuid»\n",
    "Das Geheimnis für Stripe lautet «stripe», die Bestellung «order» kostet «price» Euro.",
    '<script src="https://maps.googleapis.com/maps/api/js?key=«google»&v=«version»"></script>\n',
    'client = OpenAI(api_key="«openai»", max_retries=2)  # since «version»\n',
    "x-api-key: «anthropic»\nanthropic-version: «iso_date»\nrequest-id: «uuid»\n",
    '{"access_token": "«jwt»", "expires_in": 3600, "jti": "«uuid»"}\n',
    "¿Esta es la clave? «jwt» La otra huella es «sha».",
    "cat > id_key <<EOF\n«pem»\nEOF\nsha256sum: «md5»«md5»\n",
    "Here you go — the admin password: «password» (changed on «iso_date», ticket «digits8»).",
    "redis://:«plain_password»@cache-«file_hash».internal:6379/0 is up since «time»",
    "mysql --user=root --password=«plain_password» --host=db shop < dump-«iso_date».sql\n",
    '[smtp]\nuser = "mailer"\npasswd = \'«password»\'\ntimeout = 30\nbuild = "«version»"\n',
    "- `SECRET_KEY`: `«api_key»`\n- `DEBUG`: `false`\n- `GIT_SHA`: `«sha»`\n",
    "Set the header to `Authorization: Bearer «jwt»`, and `X-Request-Id` to «uuid».",
    "auth_token: «api_key»\ncache_key: «md5»\npublic_key_fingerprint: «md5»\ntoken_count: 4096\n",
    'api_key = "«placeholder»"\nsecret = "«placeholder»"\ndb_password = "«placeholder»"\nchecksum = "«sha»"\n',
    "Le mot de passe doit contenir 14 caractères ; le jeton expire le «slash_date». Réf. «uuid», paquet «integrity».",
    'ETag: "«md5»"\nDocker-Content-Digest: «image_digest»\nX-Trace: «md5»\nContent-Length: «digits6»\n',
)

UNSEEN: Final = (
    "Rotate this one today: «aws_id». It was created on «iso_date» in account «digits12».",
    '{"AccessKeyId": "«aws_id»", "SecretAccessKey": "«aws_secret»", "Expiration": "«iso_date»T«time»Z"}\n',
    "Dans le fichier `.netrc` j'ai vu «github», et le dernier commit est «short_sha».",
    "slack:\n  token: «slack»\n  channel: C«digits9»\n  app: «uuid»\n",
    "El webhook es https://«slack_hook» (no lo compartas). Última ejecución: «iso_date» «time».",
    "stripe.api_key = '«stripe»'  # charge «digits12», «price» USD\n",
    "GOOGLE_MAPS=«google»\nBUNDLE=main.«file_hash».js\nBUILD=«sha»\n",
    "1. OpenAI: «openai»\n2. Anthropic: «anthropic»\n3. Build: «version»\n",
    'Set-Cookie: auth=«jwt»; Path=/; Max-Age=3600\nETag: "«sha»"\n',
    "Der private Schlüssel:\n«pem»\nDer Fingerabdruck ist «md5».",
    "| User | Password | Since |\n|---|---|---|\n| root | password: «password» | «iso_date» |\n",
    "mongodb+srv://svc:«plain_password»@cluster0.«file_hash».mongodb.net/prod?retryWrites=true\n",
    "docker run -e POSTGRES_PASSWORD=«plain_password» -e TZ=UTC postgres@«image_digest»\n",
    "Your new API key is `«api_key»`; the request was «uuid».",
    "headers = {'Authorization': 'Bearer «api_key»', 'X-Commit': '«sha»'}\n",
    "[client]\nclient_secret=«api_key»\nclient_version=«version»\nredirect=https://app.example.com/cb\n",
    'PASSWORD="«placeholder»"\nAPI_TOKEN="«placeholder»"\nCOMMIT="«sha»"\nLOCK="«integrity»"\n',
    "The token limit is «digits6», the secret is kept in Vault, and your password expires on «iso_date».",
    "| File | sha256 | id |\n|---|---|---|\n| a.whl | «md5»«md5» | «uuid» |\n| b.whl | «md5»«md5» | «uuid» |\n",
    "Die Sitzung «uuid» lief mit Version «version»; Prüfsumme «base64», Commit «sha».",
)
