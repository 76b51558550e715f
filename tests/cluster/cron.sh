#!/bin/sh
# Run Debian's cron with one crontab, of this account: cron.sh TABFILE
#
# In fresh mount and process namespaces, so that this machine's own crontabs and its own cron are
# neither seen nor touched, and every job ends with the daemon.

set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs -o mode=1730 tmpfs /var/spool/cron/crontabs
chgrp crontab /var/spool/cron/crontabs
mount -t tmpfs tmpfs /etc/cron.d
mount --bind /dev/null /etc/crontab
crontab "$1"
exec env -i PATH=/usr/bin:/bin:/usr/sbin:/sbin cron -f -L 15
