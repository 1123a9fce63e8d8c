# What a peer finds on its host, set up once and not timed: git, an account's directory, a unit, a proxy.
# On standard input of `sh -s APP PORT`, as root. The same for all peers.
set -eu
app=$1 port=$2

if ! command -v git > /dev/null; then
    apt-get install -q -y --no-install-recommends git > /dev/null
fi
install -d -o deploy -g deploy "/srv/$app"

cat > "/etc/systemd/system/$app.service" <<UNIT
[Service]
Type=notify
User=deploy
WorkingDirectory=/srv/$app/current
Environment=DATABASE_URL=sqlite:////srv/$app/shared/shop.db
ExecStart=/srv/$app/venv/bin/gunicorn --workers 3 --threads 4 --bind unix:/srv/$app/shared/gunicorn.sock shop.wsgi:app
Restart=always

[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --quiet "$app"

cat > "/etc/nginx/conf.d/$app.conf" <<SITE
server {
    listen $port;
    location / {
        proxy_set_header Host \$host;
        proxy_pass http://unix:/srv/$app/shared/gunicorn.sock;
    }
}
SITE
systemctl enable --quiet nginx
systemctl reload-or-restart nginx
