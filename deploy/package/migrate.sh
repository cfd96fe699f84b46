
# migrate BASE moves BASE/private/sockwatch, where the unit of sockwatch 0.1 (DynamicUser=yes)
# kept its files, to BASE/sockwatch, which was a link to it.
migrate() {
	[ -d "$1/private/sockwatch" ] || return 0
	if [ -L "$1/sockwatch" ]; then
		rm "$1/sockwatch"
	fi
	if [ -e "$1/sockwatch" ]; then
		echo "sockwatch: $1/sockwatch exists, leaving $1/private/sockwatch where it is" >&2
		return 0
	fi
	mv -T "$1/private/sockwatch" "$1/sockwatch"
	chown -hR sockwatch:sockwatch "$1/sockwatch"
}

# migrate_state does that for state and logs, unless a unit in /etc/systemd/system, which takes
# precedence over the packaged one, still has DynamicUser=yes. It sets was_active if it has
# stopped the service.
was_active=
migrate_state() {
	if [ -f /etc/systemd/system/sockwatch.service ]; then
		echo "sockwatch: /etc/systemd/system/sockwatch.service takes precedence over the packaged unit; remove it unless you want that" >&2
		if grep -Eq '^DynamicUser=(yes|true|on|1)' /etc/systemd/system/sockwatch.service; then
			return 0
		fi
	fi
	if [ ! -d /var/lib/private/sockwatch ] && [ ! -d /var/log/private/sockwatch ]; then
		return 0
	fi
	if [ -d /run/systemd/system ] && systemctl --quiet is-active sockwatch.service; then
		was_active=yes
		systemctl stop sockwatch.service
	fi
	migrate /var/lib
	migrate /var/log
}
