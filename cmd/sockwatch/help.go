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
	return `The exit code is 1 if an input fails or a point is not delivered. For timers and cron.

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

Listeners whose owner cannot be read have no process. If they might match the flags, they are counted below the table, or on standard error with --json.

Examples:

    sockwatch list --exposure public
    sockwatch list --port 80,443,8000-8100 --wide
    sockwatch list --process 'nginx,php-fpm*' --sort=-queue --watch
    sockwatch list --namespaces --user root --json`
}

func (*checkCommand) Help() string {
	return `Each error has its file and line. No socket, queue or log is opened, so it is safe while sockwatch runs. The exit code is 1 if there are errors.

Example:

    sockwatch check --config /etc/sockwatch/sockwatch.toml`
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
