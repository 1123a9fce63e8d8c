#!/bin/sh
# A plain deploy over SSH, as people write it: one session a host, all hosts at once.
# deploy.sh SSH_CONFIG APP PORT REPOSITORY VERSION HOST...   VERSION "back" goes to the release before.
set -eu
config=$1 app=$2 port=$3 repository=$4 version=$5
shift 5

on_host() {
    ssh -F "$config" "$1" sh -eus "$app" "$port" "$repository" "$version" <<'EOF'
app=$1 port=$2 repository=$3 version=$4
mkdir -p "/srv/$app/releases" "/srv/$app/shared"
cd "/srv/$app"
if [ "$version" = back ]; then
    release=$(printf '%s\n' releases/* | grep -B 1 -x "$(readlink current)" | head -n 1)
else
    [ -d repo ] || git clone --quiet --mirror "$repository" repo
    git -C repo fetch --quiet
    release=releases/$(date +%Y%m%d%H%M%S%N)
    mkdir "$release"
    git -C repo archive "$version" | tar -x -C "$release"
    [ -d venv ] || python3 -m venv venv
fi
venv/bin/pip install --quiet --disable-pip-version-check --requirement "$release/requirements.txt"
ln -sfn "$release" current
sudo systemctl restart "$app"
for attempt in $(seq 100); do
    if curl --silent --fail --output /dev/null "http://127.0.0.1:$port/health"; then
        printf '%s\n' releases/* | head -n -5 | xargs -r rm -rf
        exit 0
    fi
    sleep 0.1
done
echo "$app does not answer" >&2
exit 1
EOF
}

running=
for host in "$@"; do
    on_host "$host" &
    running="$running $!"
done
for one in $running; do
    wait "$one"
done
