package setting_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"activerelay/api/setting"
)

type program struct {
	set    *setting.Set
	listen string
	wait   time.Duration
	nets   []string
	rule   string
	token  int
}

func newProgram() *program {
	p := &program{set: setting.New("relayx", "RELAYX")}
	p.set.Flags.StringVar(&p.listen, "listen", "127.0.0.1:1", "`address` to listen on")
	p.set.Flags.DurationVar(&p.wait, "max-wait", time.Second, "how long to wait")
	p.set.Flags.StringSliceVar(&p.nets, "networks", nil, "networks")
	p.set.Choice(&p.rule, "rule", "strict", []string{"strict", "lax"}, "how strict to be")
	p.set.Flags.IntVar(&p.token, "token", 0, "secret number")
	p.set.Secret("token")
	return p
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func none(string) string { return "" }

func TestAFlagBeatsTheVariableBeatsTheFileBeatsTheDefault(t *testing.T) {
	path := file(t, "# settings\nlisten: file:1\nmax-wait: 3s\nrule: lax\nnetworks: [10.0.0.0/8, 192.168.0.0/16]\n")
	p := newProgram()
	env := map[string]string{"RELAYX_CONFIG": path, "RELAYX_LISTEN": "env:1", "RELAYX_MAX_WAIT": "2s"}
	if err := p.set.Load([]string{"--listen", "flag:1", "rest"}, func(k string) string { return env[k] }); err != nil {
		t.Fatal(err)
	}
	if p.listen != "flag:1" || p.wait != 2*time.Second || p.rule != "lax" || strings.Join(p.nets, " ") != "10.0.0.0/8 192.168.0.0/16" || p.set.Flags.Arg(0) != "rest" {
		t.Fatalf("%+v", p)
	}
}

func TestAMistakeIsAnsweredWithItsPlaceAndTheChoices(t *testing.T) {
	for _, test := range []struct{ name, yaml, want string }{
		{"unknown key", "listen: a:1\nlistn: b:1\n", `c.yaml:2: unknown key "listn"; known keys are listen, max-wait, networks, rule, token`},
		{"bad choice", "\n\nrule: harsh\n", `c.yaml:3: rule: "harsh": choices are strict, lax`},
		{"bad duration", "max-wait: soon\n", `c.yaml:1: max-wait: "soon": want a duration, e.g. 90s, 5m or 2h`},
		{"twice", "rule: lax\nlisten: a\nrule: strict\n", `mapping key "rule" already defined at [1:1]`},
		{"nested", "listen:\n  host: x\n", `c.yaml:1: listen: want a value or a list, not further keys`},
		{"a list at the top", "- listen\n", "want settings as `name: value`"},
		{"no YAML", "listen: [\n", "c.yaml:[1:"},
		{"secret", "token: hunter2\n", "c.yaml:1: token: not a valid value"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := newProgram().set.Load([]string{"--config", file(t, test.yaml)}, none)
			if err == nil || !strings.Contains(err.Error(), strings.TrimPrefix(test.want, "c.yaml")) {
				t.Fatalf("got  %v\nwant %s", err, test.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Fatal("the error shows a secret")
			}
		})
	}
}

func TestEveryMistakeIsAnsweredNotOnlyTheFirst(t *testing.T) {
	err := newProgram().set.Load([]string{"--config", file(t, "rule: harsh\nmax-wait: soon\n")}, none)
	if err == nil || !strings.Contains(err.Error(), "harsh") || !strings.Contains(err.Error(), "soon") {
		t.Fatalf("got %v", err)
	}
}

func TestAnEmptyFileIsNoMistakeAndAMissingOneIs(t *testing.T) {
	if err := newProgram().set.Load([]string{"--config", file(t, "# nothing yet\n")}, none); err != nil {
		t.Fatal(err)
	}
	if err := newProgram().set.Load([]string{"--config", "/nonexistent.yaml"}, none); err == nil {
		t.Fatal("a missing file was accepted")
	}
}

func TestTheReferenceListsEverySettingWithItsVariableAndDefault(t *testing.T) {
	got := newProgram().set.Markdown()
	if !strings.Contains(got, "| `--max-wait` | `RELAYX_MAX_WAIT` | `1s` | how long to wait |") {
		t.Fatalf("got\n%s", got)
	}
}

func TestAValueIsRefusedInTheSameWordsWhereverItStands(t *testing.T) {
	for _, test := range []struct{ kind, flag, value, want string }{
		{"number", "--rate", "many", `"many": want a number`},
		{"whole number", "--count", "1.5", `"1.5": want a whole number`},
		{"port", "--port", "70000", `"70000": want a whole number from 0 to 65535`},
		{"truth", "--try", "maybe", `"maybe": want true or false`},
		{"duration", "--max-wait", "5", `"5": want a duration, e.g. 90s, 5m or 2h`},
		{"choice", "--rule", "harsh", `"harsh": choices are strict, lax`},
		{"secret", "--token", "hunter2", "not a valid value"},
	} {
		t.Run(test.kind, func(t *testing.T) {
			define := func() *setting.Set {
				p := newProgram()
				p.set.Flags.Float64("rate", 1, "")
				p.set.Flags.Int("count", 1, "")
				p.set.Flags.Uint16("port", 1, "")
				p.set.Flags.Bool("try", false, "")
				return p.set
			}
			variable := define().Variable(strings.TrimPrefix(test.flag, "--"))
			onLine := define().Load([]string{test.flag + "=" + test.value}, none)
			inEnvironment := define().Load(nil, func(k string) string {
				if k == variable {
					return test.value
				}
				return ""
			})
			for place, err := range map[string]error{test.flag: onLine, variable: inEnvironment} {
				if err == nil || err.Error() != place+": "+test.want {
					t.Errorf("got  %v\nwant %s: %s", err, place, test.want)
				}
			}
		})
	}
}

func TestAnAddressToListenOnHasAPortThatExists(t *testing.T) {
	for address, good := range map[string]bool{
		"127.0.0.1:0": true, ":25": true, "[::1]:65535": true, "relay.example.com:smtp": true, "localhost:8080": true,
		"": false, "127.0.0.1": false, "127.0.0.1:": false, "127.0.0.1:99999": false, "127.0.0.1:-1": false, "127.0.0.1:nosuchservice": false,
		"::1:25": false, "127.0.0.999:25": false, "a b:25": false,
	} {
		err := setting.CheckListen("listen", address)
		if good != (err == nil) {
			t.Errorf("%q: %v", address, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), "listen: ") {
			t.Errorf("%q: %v does not name the setting", address, err)
		}
	}
}
