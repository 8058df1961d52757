#!/bin/bash
# Repacks Debian's Redis as RPMs in Red Hat's file layout and makes a modular repository of them in $1.
set -euo pipefail
repo=$1
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
chmod 0755 "$work"
cd "$work"

# The local build files name the RPM architecture; the packages say which upstream version they hold.
arch=$(rpm --eval '%{_arch}')
apt-get download -qq redis-server redis-tools redis-sentinel python3-redis
upstream_version() { dpkg-deb -f "$1" Version | sed -E 's/^[0-9]+://; s/-[^-]*$//'; }
redis_version=$(upstream_version redis-tools_*.deb)
python_version=$(upstream_version python3-redis_*.deb)
for package in redis-*.deb; do dpkg-deb -x "$package" debian; done
dpkg-deb -x python3-redis_*.deb python
rm -rf python/usr/share/doc

# Red Hat's layout: one server binary under its own name, the other programs are links to it.
install -D -m 0755 debian/usr/bin/redis-check-rdb tree/usr/bin/redis-server
install -m 0755 debian/usr/bin/redis-cli debian/usr/bin/redis-benchmark tree/usr/bin/
for program in redis-sentinel redis-check-aof redis-check-rdb; do ln -s redis-server "tree/usr/bin/$program"; done
install -d tree/etc/redis tree/var/lib/redis tree/var/log/redis
sed -E -e 's|^daemonize .*|daemonize no|' -e 's|^pidfile .*|pidfile /var/run/redis_6379.pid|' \
    -e 's|^logfile .*|logfile /var/log/redis/redis.log|' debian/etc/redis/redis.conf > tree/etc/redis/redis.conf
sed -E -e 's|^daemonize .*|daemonize no|' -e 's|^pidfile .*|pidfile /var/run/redis-sentinel.pid|' \
    -e 's|^logfile .*|logfile /var/log/redis/sentinel.log|' -e 's|^dir .*|dir /tmp|' \
    debian/etc/redis/sentinel.conf > tree/etc/redis/sentinel.conf
for unit in redis redis-sentinel; do
    install -D -m 0644 "$here/$unit.service" "tree/usr/lib/systemd/system/$unit.service"
    install -D -m 0644 "$here/limit.conf" "tree/etc/systemd/system/$unit.service.d/limit.conf"
done
install -D -m 0755 "$here/redis-shutdown" tree/usr/libexec/redis-shutdown
install -D -m 0644 "$here/redis.logrotate" tree/etc/logrotate.d/redis
install -D -m 0644 debian/usr/share/doc/redis-tools/copyright tree/usr/share/licenses/redis/COPYING

build() {
    rpmbuild -bb --quiet --define "_topdir $work/rpmbuild" --define "_rpmdir $repo" \
        --define "debug_package %{nil}" --define "__os_install_post %{nil}" "${@:2}" "$here/$1.spec"
}
build lab-standin-base
build redis --define "tree $work/tree" --define "redis_version $redis_version"
build redis-old
build python3-redis --define "tree $work/python" --define "python_version $python_version"

createrepo_c --quiet "$repo"
sed -e "s/@ARCH@/$arch/g" -e "s/@REDIS_VERSION@/$redis_version/g" "$here/modules.yaml.in" > modules.yaml
modifyrepo_c --mdtype=modules modules.yaml "$repo/repodata"
