# Copyright: (c) bulletproof.deploy contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""nginx judges files that are not there yet, together with everything that is."""

from __future__ import annotations

import pathlib

from ansible_collections.bulletproof.deploy.plugins.module_utils import _nginx

UPSTREAM = "upstream shop {\n    server unix:/run/shop/live.sock;\n}\n"
SITE = "server {\n    listen 127.0.0.1:18081;\n    location / {\n        proxy_pass http://shop;\n    }\n}\n"


def snapshot(directory: pathlib.Path) -> dict[str, str]:
    return {str(path): path.read_text() for path in directory.rglob("*") if path.is_file()}


def test_a_good_file_is_accepted(nginx: str, directory: pathlib.Path) -> None:
    assert _nginx.judge(nginx, str(directory), {str(directory / "conf.d/shop.conf"): UPSTREAM + SITE}).accepted


def test_a_bad_file_is_refused_in_words_that_name_its_real_place(nginx: str, directory: pathlib.Path) -> None:
    place = directory / "conf.d/shop.conf"
    said = _nginx.judge(nginx, str(directory), {str(place): UPSTREAM + "serrver { }\n"})
    assert not said.accepted
    assert 'unknown directive "serrver"' in said.words
    assert f"{place}:4" in said.words


def test_nothing_is_written_where_the_configuration_is(nginx: str, directory: pathlib.Path) -> None:
    before = snapshot(directory)
    _nginx.judge(nginx, str(directory), {str(directory / "conf.d/shop.conf"): "serrver { }\n", str(directory / "new/one.conf"): ""})
    assert snapshot(directory) == before


def test_a_file_is_judged_with_those_it_collides_with(nginx: str, directory: pathlib.Path) -> None:
    rival = "server {\n    listen 127.0.0.1:18080 default_server;\n}\n"
    said = _nginx.judge(nginx, str(directory), {str(directory / "conf.d/shop.conf"): rival})
    assert not said.accepted and "duplicate default server" in said.words


def test_a_link_that_is_to_be_gone_is_not_seen(nginx: str, directory: pathlib.Path) -> None:
    rival = "server {\n    listen 127.0.0.1:18080 default_server;\n}\n"
    changed = {str(directory / "conf.d/shop.conf"): rival, str(directory / "sites-enabled/default"): None}
    assert _nginx.judge(nginx, str(directory), changed).accepted


def test_an_absolute_include_of_a_new_file_finds_the_new_file(nginx: str, directory: pathlib.Path) -> None:
    snippet = directory / "snippets/shop.conf"
    changed = {str(directory / "conf.d/shop.conf"): f"server {{ include {snippet}; }}\n", str(snippet): "location / { bad; }\n"}
    said = _nginx.judge(nginx, str(directory), changed)
    assert not said.accepted and f"{snippet}:1" in said.words


def test_a_site_that_would_never_be_asked_is_noticed(nginx: str, directory: pathlib.Path) -> None:
    (directory / "sites-available/default").write_text("server { listen 127.0.0.1:18080; server_name _; }\n")
    said = _nginx.judge(nginx, str(directory), {str(directory / "conf.d/shop.conf"): "server { listen 127.0.0.1:18080; server_name _; }\n"})
    assert said.accepted and len(said.shadowed) == 1


def test_a_replaced_file_is_not_judged_by_what_it_was(nginx: str, directory: pathlib.Path) -> None:
    place = directory / "conf.d/shop.conf"
    place.write_text("serrver { }\n")
    assert _nginx.judge(nginx, str(directory), {str(place): UPSTREAM + SITE}).accepted


def test_a_file_that_names_no_path_is_linked_and_not_copied(directory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (directory / "key.pem").write_text("secret")
    copy = tmp_path / "copy"
    _nginx.copy_tree(str(directory), str(copy), {})
    assert (copy / "key.pem").is_symlink()
    assert not (copy / "nginx.conf").is_symlink()


def test_links_within_the_directory_stay_within_the_copy(directory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    copy = tmp_path / "copy"
    _nginx.copy_tree(str(directory), str(copy), {})
    assert (copy / "sites-enabled/default").readlink() == copy / "sites-available/default"


def test_only_whole_paths_are_redirected() -> None:
    text = "include /etc/nginx/a; root /srv/etc/nginx/b; include /etc/nginx-other/c; include '/etc/nginx';"
    redirected = "include /x/a; root /srv/etc/nginx/b; include /etc/nginx-other/c; include '/x';"
    assert _nginx.redirected(text, "/etc/nginx", "/x") == redirected
