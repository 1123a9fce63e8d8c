# Runs inside a new lab image, as root, after its packages are installed.

useradd --create-home --shell /bin/bash deploy
install -d -m 0700 -o deploy -g deploy /home/deploy/.ssh
echo 'deploy ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/deploy
chmod 0440 /etc/sudoers.d/deploy

# Every host gets its keys and its machine id when it is made, not with the image. The file must stay, and be
# empty: without it systemd takes the first boot for a new installation and enables every unit again.
rm -f /etc/ssh/ssh_host_*
: > /etc/machine-id

systemctl set-default multi-user.target
systemctl enable ssh.service
# Whoever deploys decides about nginx.
systemctl disable nginx.service
# What a container has no device for, or what would work at a moment nobody asked for.
systemctl mask getty@.service console-getty.service systemd-udevd.service systemd-resolved.service \
    systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
    fstrim.timer dpkg-db-backup.timer

# The package lists stay: installing one more package must not need a refresh first.
rm -rf /var/cache/apt/archives/*.deb
