"""Files that others may read, but must not be able to change: whoever can has the server."""

from pathlib import Path

import pytest
from jobledger_server.config import SettingsError, resolve


def test_a_configuration_that_others_can_write_to_is_refused_or_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It names programs, peers and issuers."""
    file = tmp_path / "jobledger.toml"
    file.write_text("max_running = 3")
    for mode in (0o602, 0o666):
        file.chmod(mode)
        with pytest.raises(SettingsError, match=f"every user of this machine can write to .*chmod go-w {file}"):
            resolve({}, {}, file)
    for mode, warned in ((0o644, False), (0o664, True)):
        file.chmod(mode)
        assert any(setting.value == 3 and setting.source == str(file) for setting in resolve({}, {}, file))
        assert (f"chmod g-w {file}" in caplog.text) is warned
