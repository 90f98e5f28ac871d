#!/bin/busybox sh
# The guest's page. Run by httpd for "/", since there is no index.html.

text() { # percent-decode, then make it safe to show in HTML
	shown=${1//\\/%5C}
	shown=$(printf '%b' "${shown//%/\\x}")
	shown=${shown//&/&amp;}
	shown=${shown//</&lt;}
	shown=${shown//>/&gt;}
	shown=${shown//\"/&quot;}
}

row() {
	text "$2"
	printf '<tr><th>%s</th><td>%s</td></tr>\n' "$1" "$shown"
}

printf 'Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n\r\n'
[ "$REQUEST_METHOD" = HEAD ] && exit
read -r uptime _ < /proc/uptime
text "${EW_GREETING:-Hello from ${EW_SERVICE:-a guest}}"
printf '<!DOCTYPE html>\n<html lang="en"><head><title>%s</title>\n' "$shown"
printf '<style>body{font:16px sans-serif;margin:3em auto;max-width:36em}th{text-align:left;padding-right:1em}</style>\n'
printf '</head><body><h1>%s</h1>\n<table>\n' "$shown"
row Guest "$EW_NAME"
row Service "$EW_SERVICE"
row Host "$EW_HOST"
row Address "$EW_IP"
row "Up for" "$uptime seconds"
row Time "$(date -u '+%Y-%m-%d %H:%M:%S') UTC"
printf '</table></body></html>\n'
