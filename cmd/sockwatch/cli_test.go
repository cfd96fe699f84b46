package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sockwatch"
)

// A result is the output and exit code of a command line.
type result struct {
	Code           int
	Stdout, Stderr string
}

// sockwatchRun runs a command line with only these environment variables.
func sockwatchRun(env map[string]string, args ...string) result {
	var stdout, stderr strings.Builder
	getenv := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	code := run(args, getenv, &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// writeFile writes a file into a directory and returns its path.
func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const smallConfig = "[[inputs.tcp_listen]]\n[[outputs.stdout]]\n"

func TestWrongUsageExits2(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
		help string // the command whose help is recommended; "": that of the program
	}{
		{args: []string{"--nope"}, want: "unknown flag --nope"},
		{args: []string{"--x"}, want: "unknown flag --x"},
		{args: []string{"--confg", "x"}, want: `unknown flag --confg, did you mean "--config"?`},
		{args: []string{"list", "--prt", "80"}, want: `unknown flag --prt, did you mean "--port"?`, help: "list "},
		{args: []string{"list", "--pt", "80"}, want: "unknown flag --pt", help: "list "},
		{args: []string{"list", "--exposures"}, want: `unknown flag --exposures, did you mean "--exposure"?`, help: "list "},
		{args: []string{"check", "--jsn"}, want: `unknown flag --jsn, did you mean "--json"?`, help: "check "},
		{args: []string{"check", "--json"}, want: "check: --json needs --live", help: "check "},
		{args: []string{"run", "--port", "80"}, want: "unknown flag --port", help: "run "},
		{args: []string{"frobnicate"}, want: "unexpected argument frobnicate"},
		{args: []string{"lst"}, want: `unexpected argument lst, did you mean "list"?`},
		{args: []string{"ls"}, want: "unexpected argument ls"},
		{args: []string{"check", "--config"}, want: "--config needs a value", help: "check "},
		{args: []string{"check", "--config="}, want: "--config: the path is empty", help: "check "},
		{args: []string{"run", "--config-directory", ""}, want: "--config-directory: the path is empty", help: "run "},
		{args: []string{"list", "--sort"}, want: "--sort needs a value", help: "list "},
		{args: []string{"list", "--user", "--json"}, want: "--user needs a value", help: "list "},
		{args: []string{"watch", "--interval"}, want: "--interval needs a value", help: "watch "},
		{args: []string{"completion"}, want: "SHELL is missing", help: "completion "},
		{args: []string{"completion", "tcsh"}, want: `SHELL: "tcsh" is not one of bash, zsh, fish`, help: "completion "},
		{args: []string{"list", "--config", "x"}, want: "unknown flag --config", help: "list "},
		{args: []string{"version", "now"}, want: "unexpected argument now", help: "version "},
		{args: []string{"--test"}, want: `--test is a command: "sockwatch test"`},
		{args: []string{"--config", "x", "-test"}, want: `-test is a command: "sockwatch test"`},
		{args: []string{"--once"}, want: `--once is a command: "sockwatch once"`},
		{args: []string{"--version"}, want: `--version is a command: "sockwatch version"`},
		{args: []string{"-V"}, want: `-V is a command: "sockwatch version"`},
		{args: []string{"run", "--debug"}, want: `--debug is an option of the configuration: log_level = "debug" in [agent]`, help: "run "},
		{args: []string{"--pidfile=x"}, want: "--pidfile=x is not an option: the service manager knows the process"},
		{args: []string{"help"}, want: `help is a flag: "sockwatch --help"`},
		{args: []string{"help", "list"}, want: `help is a flag: "sockwatch list --help"`},
		{args: []string{"help", "frobnicate"}, want: `help is a flag: "sockwatch --help"`},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			want := result{2, "", "sockwatch: " + test.want + "\nTry \"sockwatch " + test.help + "--help\".\n"}
			if diff := cmp.Diff(want, sockwatchRun(nil, test.args...)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestHelpShowsEveryCommand(t *testing.T) {
	r := sockwatchRun(nil, "--help")
	if r.Code != 0 || r.Stderr != "" {
		t.Errorf("exit code %d, stderr %q", r.Code, r.Stderr)
	}
	for _, command := range []string{"run", "once", "test", "list", "check", "config", "execd", "completion", "version"} {
		if !regexp.MustCompile(`(?m)^  ` + command + ` `).MatchString(r.Stdout) {
			t.Errorf("no %q in\n%s", command, r.Stdout)
		}
	}
}

func TestVersion(t *testing.T) {
	r := sockwatchRun(nil, "version")
	if r.Code != 0 || r.Stderr != "" || !regexp.MustCompile(`^sockwatch \S+ go1\.\S+ \w+/\w+\n$`).MatchString(r.Stdout) {
		t.Errorf("%+v", r)
	}
}

func TestConfigPrintsTheExample(t *testing.T) {
	if diff := cmp.Diff(result{0, sockwatch.ExampleConfig, ""}, sockwatchRun(nil, "config")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFilesThatCannotBeReadAreErrors(t *testing.T) {
	dir := t.TempDir()
	good := writeFile(t, dir, "good.toml", smallConfig)
	empty := writeFile(t, dir, "empty.toml", "")
	missing := filepath.Join(dir, "missing.toml")
	emptyDir := filepath.Join(dir, "d")
	if err := os.Mkdir(emptyDir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, emptyDir, ".hidden.toml", "x")
	writeFile(t, emptyDir, "other.conf", "x")
	for _, test := range []struct {
		name string
		env  map[string]string
		args []string
		want string
	}{
		{name: "missing", env: nil, args: []string{"--config", missing}, want: "sockwatch: open " + missing + ": no such file or directory\n"},
		{name: "empty", env: nil, args: []string{"--config", empty}, want: empty + ": the file is empty\n"},
		{name: "a directory", env: nil, args: []string{"--config", dir}, want: "sockwatch: read " + dir + ": is a directory: use --config-directory to read every *.toml in it\n"},
		{name: "one of several", env: nil, args: []string{"--config", good, "--config", missing, "--config", dir},
			want: "sockwatch: open " + missing + ": no such file or directory\n" +
				"sockwatch: read " + dir + ": is a directory: use --config-directory to read every *.toml in it\n"},
		{name: "from the environment", env: map[string]string{"SOCKWATCH_CONFIG": missing}, args: nil,
			want: "sockwatch: $SOCKWATCH_CONFIG: open " + missing + ": no such file or directory\n"},
		{name: "no directory", env: nil, args: []string{"--config-directory", missing}, want: "sockwatch: open " + missing + ": no such file or directory\n"},
		{name: "an empty directory", env: nil, args: []string{"--config-directory", emptyDir}, want: "sockwatch: " + emptyDir + ": no *.toml files\n"},
	} {
		for _, command := range []string{"check", "run", "once", "test"} {
			t.Run(test.name+"/"+command, func(t *testing.T) {
				r := sockwatchRun(test.env, append([]string{command}, test.args...)...)
				if diff := cmp.Diff(result{1, "", test.want}, r); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
	}
	t.Run("unreadable", func(t *testing.T) {
		path := writeFile(t, dir, "unreadable.toml", smallConfig)
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := os.ReadFile(path); err == nil {
			t.Skip("this user reads a file of mode 0000")
		}
		want := result{1, "", "sockwatch: open " + path + ": permission denied\n"}
		if diff := cmp.Diff(want, sockwatchRun(nil, "check", "--config", path)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	a := writeFile(t, dir, "a.toml", "[[inputs.tcp_listen]]\nalias = \"x\"\n")
	b := writeFile(t, dir, "b.toml", "[[outputs.stdout]]\n[[outputs.prometheus]]\nlisten = \"127.0.0.1:0\"\n")
	bad := writeFile(t, dir, "c.toml", "[agent]\nintervall = \"10s\"\n\n[[outputs.stdout]]\nalias = \"y\"\ndata_format = 1\n")
	ok := a + ", " + b + ": ok: inputs.tcp_listen-x, outputs.stdout, outputs.prometheus\n"
	var inputs []string
	for _, plugin := range plugins() {
		if plugin.NewInput != nil {
			inputs = append(inputs, plugin.Name)
		}
	}
	slices.Sort(inputs)
	for _, test := range []struct {
		name string
		env  map[string]string
		args []string
		want result
	}{
		{name: "two files", env: nil, args: []string{"--config", a, "--config", b}, want: result{0, ok, ""}},
		{name: "errors", env: nil, args: []string{"--config", bad, "--config", b}, want: result{1, "", `no inputs: at least one [[inputs.NAME]] is needed (known: ` + strings.Join(inputs, ", ") + `)
` + bad + `:2: agent: unknown option "intervall" (did you mean "interval"?)
` + bad + `:6: outputs.stdout: data_format: must be a string: put it in quotes
` + b + `:1: outputs.stdout: alias: there are 2 instances of this plugin: give each its own alias
`}},
		{name: "a directory", env: nil, args: []string{"--config-directory", dir}, want: result{1, "", b + `:1: outputs.stdout: alias: there are 2 instances of this plugin: give each its own alias
` + bad + `:2: agent: unknown option "intervall" (did you mean "interval"?)
` + bad + `:6: outputs.stdout: data_format: must be a string: put it in quotes
`}},
		{name: "from the environment", env: map[string]string{"SOCKWATCH_CONFIG": bad}, args: nil, want: result{1, "", "?"}},
		{name: "flags before the environment", env: map[string]string{"SOCKWATCH_CONFIG": bad}, args: []string{"--config", a, "--config", b}, want: result{0, ok, ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := sockwatchRun(test.env, append([]string{"check"}, test.args...)...)
			if test.want.Stderr == "?" {
				test.want.Stderr = got.Stderr
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckWithoutAnyFileTakesTheExample(t *testing.T) {
	if _, err := os.Stat(systemDir); !errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s exists here: %v", systemDir, err)
	}
	want := result{0, "built-in configuration: ok: inputs.tcp_listen, outputs.stdout, outputs.prometheus\n", ""}
	if diff := cmp.Diff(want, sockwatchRun(nil, "check")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// check prints no secret of a configuration or its environment, whether the configuration
// is valid or not.
func TestSecretsAreNotInCheckOutput(t *testing.T) {
	const secret = "correct-horse-battery"
	dir := t.TempDir()
	tokenFile := writeFile(t, dir, "token", secret+"\n")
	env := map[string]string{"TOKEN": secret}
	for _, options := range []string{
		`token = "` + secret + `"`,
		`token = "${TOKEN}"`,
		`token_file = "` + tokenFile + `"`,
		`password = "` + secret + `"`,
		`urls = ["http://user:` + secret + `@127.0.0.1:8086"]`,
		`urls = ["http://user:${TOKEN}@127.0.0.1:8086"]`,
		`urls = ["http://user:` + secret + `@127.0.0.1:x/%zz"]`,
		`urls = ["http://user:${TOKEN}@127.0.0.1:x"]`,
		`token = ` + secret,
		`token = "` + secret,
		`token = ["` + secret + `"]`,
		`token = { a = "` + secret + `" }`,
		`username = "u"` + "\n" + `password = "` + secret + `\q"`,
		`organization = "o"` + "\n" + `token = """` + secret + "\n" + `"""`,
		`token_file = "${TOKEN}"`,
		`api = "${TOKEN}"`,
		`max_body = "${TOKEN}"`,
		`timeout = "${TOKEN}"`,
		`insecure_skip_verify = "${TOKEN}"`,
		`token = "a` + "\x01" + secret + `"`,
	} {
		for _, rest := range []string{"database = \"x\"\n", "bucket = \"x\"\n", "database = \"x\"\nbucket = \"y\"\nfrobnicate = 1\n"} {
			path := writeFile(t, dir, "s.toml", "[[inputs.tcp_listen]]\n[[outputs.influxdb]]\n"+rest+options+"\n")
			r := sockwatchRun(env, "check", "--config", path)
			if out := r.Stdout + r.Stderr; strings.Contains(out, secret) || out == "" {
				t.Errorf("%s\n%s prints\n%s", rest, options, out)
			}
		}
	}
}

func TestOnceNeedsAnOutputThatPushes(t *testing.T) {
	path := writeFile(t, t.TempDir(), "s.toml", "[[inputs.tcp_listen]]\n[[outputs.prometheus]]\nlisten = \"127.0.0.1:0\"\n")
	want := result{1, "", "sockwatch: the configuration has no output that pushes: once needs one\n"}
	if diff := cmp.Diff(want, sockwatchRun(nil, "once", "--config", path)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEndlessFileIsRefused(t *testing.T) {
	if _, err := os.Stat("/dev/zero"); err != nil {
		t.Skip(err)
	}
	want := result{1, "", "sockwatch: /dev/zero: is larger than 1MiB\n"}
	if diff := cmp.Diff(want, sockwatchRun(nil, "check", "--config", "/dev/zero")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestOptionsOfTelegrafOutputs: the error says what to write instead.
func TestOptionsOfTelegrafOutputs(t *testing.T) {
	config := writeFile(t, t.TempDir(), "s.toml", `[[inputs.tcp_listen]]
[[outputs.file]]
path = "/tmp/x"
compression_algorithm = "zstd"
compression_level = 3
[[outputs.influxdb]]
database = "d"
influx_uint_support = false
`)
	want := `4: outputs.file: unknown option "compression_algorithm" (leave it out: only logrotate compresses files)
5: outputs.file: unknown option "compression_level" (leave it out: only logrotate compresses files)
8: outputs.influxdb: unknown option "influx_uint_support" (leave it out: all integers are written as signed integers)
`
	got := strings.ReplaceAll(sockwatchRun(nil, "check", "--config", config).Stderr, config+":", "")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A warning is no error: the check passes.
func TestCheckWarnsOfRegularExpressions(t *testing.T) {
	file := writeFile(t, t.TempDir(), "a.toml", `[[inputs.tcp_listen]]
[[inputs.tcp_listen.expect]]
  name = "web"
  process = ["^nginx$", "apache*"]
  unit = "nginx.*"
[[outputs.stdout]]
`)
	r := sockwatchRun(nil, "check", "--config", file)
	want := `level=WARN msg="inputs.tcp_listen.expect: process: pattern \"^nginx$\" looks like a regular expression, but is a glob, which matches whole values: write \"nginx\"" file=` + file + " line=4\n"
	if _, message, _ := strings.Cut(r.Stderr, " "); r.Code != exitDone || message != want {
		t.Errorf("exit code %d, %q on stderr, want %q", r.Code, message, want)
	}
}
