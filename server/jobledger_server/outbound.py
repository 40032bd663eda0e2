"""What the server itself asks of others over HTTP."""

import aiohttp

from jobledger_server.access.issuer_keys import FetchError

MOST_BYTES = 256 * 1024
HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


async def fetch(url: str, *, seconds: float = 10.0) -> bytes:
    """The body at a URL. Redirects are not followed: whoever can redirect would choose who is believed.

    Raises:
        FetchError: it is not there, too large, or not whole in `seconds`.
    """
    try:
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=seconds),
            cookie_jar=aiohttp.DummyCookieJar(),
            # What is small when it is compressed may be huge.
            auto_decompress=False,
        ) as session:
            return await _body(session, url)
    except TimeoutError:
        raise FetchError(f"{url} was not answered in full within {seconds:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise FetchError(f"{url} was not answered ({type(error).__name__}: {error})") from None


async def _body(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url, headers=HEADERS, allow_redirects=False) as response:
        if response.status != 200:
            raise FetchError(f"{url} answered {response.status}, not 200; redirects are not followed")
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > MOST_BYTES:
                raise FetchError(f"{url} is larger than {MOST_BYTES} bytes")
        return bytes(body)
