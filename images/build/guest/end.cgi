#!/bin/busybox sh
# Lets a test end the guest from inside: /cgi-bin/poweroff and /cgi-bin/crash, if edgewake.test=1.
if [ "$EW_TEST" != 1 ]; then
	printf 'Status: 403 Forbidden\r\nContent-Type: text/plain\r\n\r\nonly with edgewake.test=1\n'
	exit
fi
printf 'Content-Type: text/plain\r\n\r\nending\n'
exec > /dev/null # the reply is complete; give it time to leave
usleep 200000
case ${SCRIPT_NAME##*/} in
	crash) echo c > /proc/sysrq-trigger ;;
	*) [ -d /proc/acpi ] || [ -d /proc/xen ] && poweroff -f; reboot -f ;;
esac
