package main

// The details of each command's help: paragraphs, then examples, which are indented.
// Kong prints them; the man page has them too.

func (*runCommand) Help() string {
	return `Outputs that serve, such as prometheus, bind their addresses before the first gather. Before the program ends, outputs that push deliver their queues for at most shutdown_timeout.

Examples:

    sockwatch
    sockwatch run --config /etc/sockwatch/sockwatch.toml`
}

func (*onceCommand) Help() string {
	return `The exit code is 1 if an input fails or a point is not delivered. Meant for timers and cron.

Example:

    sockwatch once --config /etc/sockwatch/sockwatch.toml`
}

func (*testCommand) Help() string {
	return `The points are those that outputs would get, after names, tags and filters of the inputs. Messages go to standard error.

Example:

    sockwatch test --config /etc/sockwatch/sockwatch.toml`
}

func (*listCommand) Help() string {
	return `It reads no configuration and uses no output. Flags that select listeners can be repeated and combined; all have to match. Globs are those of the configuration: *, ?, [a-z] and {a,b}.

The address * is [::] that accepts IPv4, too. Listeners whose owner cannot be read have no process. If they might match the flags, they are counted below the table, or on standard error with --json.

Examples:

    sockwatch list --exposure public
    sockwatch list --port 80,443,8000-8100 --wide
    sockwatch list --process 'nginx,php-fpm*' --sort=-queue --watch
    sockwatch list --namespaces --user root --json`
}

func (*watchCommand) Help() string {
	return `One line per change: opened, returned, closed, restarted, owner_changed or exposure_changed, the listener, its owner, and the previous state. It needs no configuration and no running agent, and writes to no state directory. Flags that select listeners are those of list; a change is printed if they match the listener before or after it, or if the owner is unknown and might match.

With --since, the changes that this host's agent has recorded come first, at most the last 2,000. Messages go to standard error. Ctrl-C ends the program with exit code 0.

Examples:

    sockwatch watch
    sockwatch watch --exposure public --settle 1m
    sockwatch watch --port 8000-8100 --interval 200ms
    sockwatch watch --since 24h --json >changes.jsonl`
}

func (*expectCommand) Help() string {
	return `Each listener gets an [[expect]] rule with a comment: address, port, process, program, user and unit, without the parts that change when a service is restarted. Ports of the ephemeral range (net.ipv4.ip_local_port_range) share one rule per process. Review the rules before you use them: they include listeners that should not be there.

"sockwatch check --live" passes with these rules as long as nothing changes. The tcp_listen inputs of the configuration decide what is scanned. Their current rules are ignored, and rule files are not read, so the output may replace one. If there are several inputs, each has its own part of the output.

The exit code is 1 if an owner could not be read, because the rule of that listener names no process, and any process may then take its place. Standard error names these listeners and says how to see their owners.

Examples:

    sockwatch expect >/etc/sockwatch/expect.d/baseline.toml
    sockwatch expect --inline --config /etc/sockwatch/sockwatch.toml`
}

func (*checkCommand) Help() string {
	return `Each error has its file and line. Without --live, no socket, queue or log is opened, so it is safe while sockwatch runs. Certificates, secrets and web_config_file are not read, either: errors in them show when sockwatch starts, or in its log. The exit code is 1 if there are errors.

With --live, this host is scanned once and compared with the [[expect]], [[allow]] and [[forbid]] rules of every tcp_listen input. An expected listener must be there now: "for" does not apply. Missing listeners are printed first, then those that are forbidden, unexpected or undecided (the owner is unknown), each with the nearest rule and what does not match. The exit code is 1 if there are any, if the scan was incomplete, or if there are no rules. It uses neither outputs nor the state directory.

Examples:

    sockwatch check --config /etc/sockwatch/sockwatch.toml
    sockwatch check --live
    sockwatch check --live --json >baseline.json`
}

func (configCommand) Help() string {
	return `Commented-out options are not set. sockwatch uses this configuration if it finds no other.

Example:

    sockwatch config >sockwatch.toml`
}

func (*execdCommand) Help() string {
	return `For inputs.execd of Telegraf with signal = "STDIN". Each newline on standard input makes every input of the configuration gather once; without a configuration that is tcp_listen with its defaults. The program ends at the end of standard input or at SIGTERM. Outputs of the configuration are not used. The log goes to standard error with the levels of Telegraf: E!, W!, I! and D!.

Example:

    sockwatch execd --config /etc/telegraf/sockwatch.toml`
}

func (*completionCommand) Help() string {
	return `Packages install these scripts. To enable one yourself, for the current shell or for good:

    source <(sockwatch completion bash)
    sockwatch completion bash >/etc/bash_completion.d/sockwatch
    sockwatch completion zsh >/usr/local/share/zsh/site-functions/_sockwatch
    sockwatch completion fish >~/.config/fish/completions/sockwatch.fish`
}

func (versionCommand) Help() string {
	return `Also prints the Go version and the platform of the build. A build between releases has the next version with "-dev".

Example:

    sockwatch version`
}
