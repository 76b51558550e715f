#!/bin/sh
# Become the root process of an HPC host: enter.sh CACHE ROOT FILES NAME
#
# Runs in fresh mount, PID, network, host-name and IPC namespaces. The host's file tree is ROOT,
# which stays as it is, with FILES copied over it, and a file system in memory that takes all
# changes: everything is gone when the last process is. Then it waits for a line on standard input
# (the network is there) and becomes init.py.

set -eu
cache=$1 root=$2 files=$3 name=$4

mount --make-rprivate /
hostname "$name"
stage=$cache/stage
mount -t tmpfs -o mode=755 tmpfs "$stage"
mkdir "$stage/upper" "$stage/work" "$stage/root"
mount -t overlay -o "lowerdir=$root,upperdir=$stage/upper,workdir=$stage/work" overlay "$stage/root"
cd "$stage/root"
cp -r "$files/root/." .
cp "$files/init.py" sbin/init.py

mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs dev
while read -r node major minor; do
    mknod -m 666 "dev/$node" c "$major" "$minor"
done << NODES
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
fuse 10 229
NODES
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp

mkdir old
pivot_root . old
umount -l /old
rmdir /old
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root /usr/bin/python3 -I /sbin/init.py
