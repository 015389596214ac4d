package house

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// composeFile has the members of the Compose specification that ours uses:
// one that isn't here is a spelling mistake until somebody adds it.
type composeFile struct {
	Name        string
	Gateway     service           `yaml:"x-gateway"`
	Environment map[string]string `yaml:"x-environment"`
	Services    map[string]service
	Secrets     map[string]struct{ File string }
	Volumes     map[string]struct{}
	Networks    map[string]struct {
		IPAM struct{ Config []struct{ Subnet string } }
	}
}

type service struct {
	Image           string
	Build           string
	Command         []string
	Environment     map[string]string
	Secrets         []string
	Volumes         []string
	Ports           []string
	ReadOnly        bool     `yaml:"read_only"`
	CapDrop         []string `yaml:"cap_drop"`
	CapAdd          []string `yaml:"cap_add"`
	SecurityOpt     []string `yaml:"security_opt"`
	Restart         string
	StopGracePeriod string `yaml:"stop_grace_period"`
	NetworkMode     string `yaml:"network_mode"`
	Networks        map[string]struct{ Aliases []string }
	Tmpfs           []string
	DependsOn       map[string]struct{ Condition string } `yaml:"depends_on"`
	Healthcheck     struct {
		Test              []string
		Interval, Timeout string
		Retries           int
	}
}

func compose(t *testing.T) composeFile {
	t.Helper()
	var c composeFile
	d := yaml.NewDecoder(strings.NewReader(read(t, "docker-compose.yml")))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

// ofGateway are the services that run our binary.
func (c composeFile) ofGateway() map[string]service {
	out := maps.Clone(c.Services)
	maps.DeleteFunc(out, func(_ string, s service) bool { return s.Image != c.Gateway.Image })
	return out
}

// settings are the variables that the configuration structure reads.
func settings(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, m := range regexp.MustCompile("`env:\"([A-Z_]+)").FindAllStringSubmatch(read(t, "internal/config/config.go"), -1) {
		out = append(out, m[1])
	}
	if len(out) < 10 {
		t.Fatalf("saw %d settings, which can't be all", len(out))
	}
	return out
}

// setting reports whether name is a setting, or its twin that names a file.
func setting(t *testing.T, name string) bool {
	t.Helper()
	return slices.Contains(settings(t), strings.TrimSuffix(name, "_FILE")) || slices.Contains(settings(t), name)
}

func TestComposeHasTheWholeHouse(t *testing.T) {
	t.Parallel()
	c := compose(t)
	want := []string{"gateway-1", "gateway-2", "lb", "migrate", "postgres", "sandbox"}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(c.Services))); diff != "" {
		t.Fatalf("services (-want +got):\n%s", diff)
	}
	for name, verb := range map[string]string{"gateway-1": "serve", "gateway-2": "serve", "migrate": "migrate", "sandbox": "sandbox"} {
		s := c.Services[name]
		if len(s.Command) == 0 || s.Command[0] != verb {
			t.Errorf("%s runs %q, want %s", name, s.Command, verb)
		}
		if verb != "sandbox" && s.DependsOn["migrate"].Condition != "service_completed_successfully" && verb != "migrate" {
			t.Errorf("%s does not wait for migrate to succeed", name)
		}
	}
	if got := c.Services["migrate"].DependsOn["postgres"].Condition; got != "service_healthy" {
		t.Errorf("migrate waits for postgres to be %q, want service_healthy", got)
	}
	for _, name := range []string{"postgres", "lb"} {
		if h := c.Services[name].Healthcheck; len(h.Test) < 2 || h.Test[0] != "CMD" || h.Interval == "" || h.Timeout == "" || h.Retries == 0 {
			t.Errorf("%s has no complete health check: %+v", name, h)
		}
	}
	for name, s := range c.Services {
		for other := range s.DependsOn {
			if _, ok := c.Services[other]; !ok {
				t.Errorf("%s depends on %s, which does not exist", name, other)
			}
		}
	}
	// Each flag of the sandbox exists.
	flags := read(t, "cmd/gateway/sandbox.go")
	for _, arg := range c.Services["sandbox"].Command {
		if name, ok := strings.CutPrefix(arg, "--"); ok && !strings.Contains(flags, `"`+name+`"`) {
			t.Errorf("gateway sandbox has no flag %s", arg)
		}
	}
}

// Every variable is one that the binary reads; a wrong name would be silence.
func TestComposeSetsOnlyWhatExists(t *testing.T) {
	t.Parallel()
	c := compose(t)
	for name, s := range c.ofGateway() {
		for variable, value := range s.Environment {
			if !setting(t, variable) {
				t.Errorf("%s sets %s, which internal/config does not know", name, variable)
			}
			if variable == "DATABASE_URL" || strings.Contains(value, "postgres://") {
				t.Errorf("%s has the database's password in its environment", name)
			}
		}
	}
	for _, name := range []string{"gateway-1", "gateway-2", "migrate"} {
		s := c.Services[name]
		for _, must := range []string{"DATABASE_URL_FILE", "GATEWAY_KEYSET_FILE"} {
			if s.Environment[must] == "" {
				t.Errorf("%s does not set %s", name, must)
			}
		}
		if !slices.Contains(s.Secrets, "database_url") || s.Environment["DATABASE_URL_FILE"] != "/run/secrets/database_url" {
			t.Errorf("%s does not read DATABASE_URL from its secret", name)
		}
	}
	env := c.Services["gateway-1"].Environment
	if subnet := c.Networks["default"].IPAM.Config[0].Subnet; env["GATEWAY_TRUSTED_PROXIES"] != subnet {
		t.Errorf("GATEWAY_TRUSTED_PROXIES is %s, the network %s", env["GATEWAY_TRUSTED_PROXIES"], subnet)
	}
}

func TestComposeSecretsAreFilesOutsideGit(t *testing.T) {
	t.Parallel()
	c := compose(t)
	maker := read(t, "deploy/make-secrets")
	for name, s := range c.Secrets {
		file, ok := strings.CutPrefix(s.File, "deploy/secrets/")
		if !ok || !strings.Contains(maker, "secrets/"+file) {
			t.Errorf("secret %s is %s, which deploy/make-secrets does not make", name, s.File)
		}
	}
	for name, s := range c.Services {
		for _, secret := range s.Secrets {
			if c.Secrets[secret].File == "" {
				t.Errorf("%s uses the secret %s, which does not exist", name, secret)
			}
		}
		for variable := range s.Environment {
			if regexp.MustCompile(`PASSWORD$|SECRET$|TOKEN$|KEY$`).MatchString(variable) {
				t.Errorf("%s has the secret %s in its environment", name, variable)
			}
		}
	}
	if !strings.Contains(read(t, "deploy/.gitignore"), "/secrets/") || !strings.Contains(read(t, ".dockerignore"), "/deploy/secrets/") {
		t.Error("deploy/secrets is not left out of git and of the image")
	}
}

// Only the load balancer can be reached from outside, and only from this machine.
func TestComposePublishesTheLoadBalancerOnly(t *testing.T) {
	t.Parallel()
	c := compose(t)
	for name, s := range c.Services {
		var want []string
		if name == "lb" {
			want = []string{"127.0.0.1:8080:8080", "127.0.0.1:8081:8081"}
		}
		if diff := cmp.Diff(want, s.Ports); diff != "" {
			t.Errorf("%s publishes (-want +got):\n%s", name, diff)
		}
		if s.NetworkMode != "" && (name != "sandbox" || s.NetworkMode != "service:lb") {
			t.Errorf("%s has the network mode %s", name, s.NetworkMode)
		}
	}
	if !slices.Contains(c.Services["lb"].Networks["default"].Aliases, "sandbox") {
		t.Error("the gateways cannot find the sandbox: it lives in lb's network, which needs the alias")
	}
	caddy := read(t, "deploy/Caddyfile")
	for _, must := range []string{"reverse_proxy gateway-1:8080 gateway-2:8080 {", "health_uri /readyz", "\n:8080 {"} {
		if !strings.Contains(caddy, must) {
			t.Errorf("deploy/Caddyfile lacks %q", must)
		}
	}
	if strings.Count(caddy, "{") != strings.Count(caddy, "}") {
		t.Error("deploy/Caddyfile: a brace is missing")
	}
}

func TestComposeHardensOurContainers(t *testing.T) {
	t.Parallel()
	c := compose(t)
	ours := c.ofGateway()
	if len(ours) != 4 {
		t.Fatalf("%d services run the image %s, want 4", len(ours), c.Gateway.Image)
	}
	spools := map[string]string{}
	for name, s := range ours {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s is not hardened: read_only %v, cap_drop %v, cap_add %v, security_opt %v", name, s.ReadOnly, s.CapDrop, s.CapAdd, s.SecurityOpt)
		}
		for _, v := range s.Volumes {
			volume, path, _ := strings.Cut(v, ":")
			if _, ok := c.Volumes[volume]; !ok {
				t.Errorf("%s mounts the volume %s, which does not exist", name, volume)
			}
			path, _, _ = strings.Cut(path, ":")
			if path != s.Environment["GATEWAY_SPOOL_DIR"] {
				continue
			}
			if other, ok := spools[volume]; ok {
				t.Errorf("%s and %s share the spool %s", name, other, volume)
			}
			spools[volume] = name
		}
	}
	if len(spools) != 2 {
		t.Errorf("spools: %v, want one for each of two gateways", spools)
	}
}

var pinned = regexp.MustCompile(`^[a-z0-9./-]+:[A-Za-z0-9._-]+$`)

func TestComposePinsItsImages(t *testing.T) {
	t.Parallel()
	for name, s := range compose(t).Services {
		if !pinned.MatchString(s.Image) || strings.HasSuffix(s.Image, ":latest") {
			t.Errorf("%s uses the image %q, want a tag that is not latest", name, s.Image)
		}
	}
	m := regexp.MustCompile(`postgres:(\d+)`).FindStringSubmatch(compose(t).Services["postgres"].Image)
	if m == nil || m[1] < "15" {
		t.Errorf("postgres is %v, want 15 or newer", m)
	}
}

// instruction is one of a Dockerfile, its continued lines joined.
type instruction struct{ verb, rest string }

func dockerfile(t *testing.T) []instruction {
	t.Helper()
	text := regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(read(t, "Dockerfile"), "")
	text = regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, "")
	known := []string{"FROM", "WORKDIR", "COPY", "RUN", "ARG", "LABEL", "USER", "ENV", "VOLUME", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
	var out []instruction
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		verb, rest, _ := strings.Cut(line, " ")
		if !slices.Contains(known, verb) {
			t.Fatalf("Dockerfile: %q is no instruction that this test knows", line)
		}
		out = append(out, instruction{verb, rest})
	}
	return out
}

func TestDockerfile(t *testing.T) {
	t.Parallel()
	var stages [][]instruction
	for _, in := range dockerfile(t) {
		if in.verb == "FROM" {
			stages = append(stages, nil)
		}
		if len(stages) == 0 {
			t.Fatalf("%s before FROM", in.verb)
		}
		stages[len(stages)-1] = append(stages[len(stages)-1], in)
	}
	if len(stages) != 2 {
		t.Fatalf("%d stages, want one that builds and one that runs", len(stages))
	}
	find := func(stage int, verb string) string {
		var all []string
		for _, in := range stages[stage] {
			if in.verb == verb {
				all = append(all, in.rest)
			}
		}
		return strings.Join(all, "\n")
	}
	for stage := range stages {
		image := regexp.MustCompile(`--platform=\S+ | AS \w+$`).ReplaceAllString(find(stage, "FROM"), "")
		if !pinned.MatchString(image) || strings.HasSuffix(image, ":latest") {
			t.Errorf("stage %d is from %q, want a tag that is not latest", stage+1, image)
		}
	}
	goVersion := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "go.mod"))[1]
	if !strings.Contains(find(0, "FROM"), " golang:"+goVersion) {
		t.Errorf("built by %q, go.mod says %s", find(0, "FROM"), goVersion)
	}
	for _, must := range []string{"CGO_ENABLED=0", "-trimpath", "./cmd/gateway"} {
		if !strings.Contains(find(0, "RUN"), must) {
			t.Errorf("the build lacks %s", must)
		}
	}
	if !strings.HasPrefix(find(1, "FROM"), "gcr.io/distroless/static-") {
		t.Errorf("it runs on %q, want distroless static", find(1, "FROM"))
	}
	if got := find(1, "USER"); got != "65532:65532" {
		t.Errorf("USER %q, want 65532:65532", got)
	}
	if find(1, "RUN") != "" {
		t.Error("RUN in a stage without a shell")
	}
	if got := find(1, "ENTRYPOINT") + find(1, "CMD"); got != `["/usr/local/bin/gateway"]["serve"]` {
		t.Errorf("it runs %s", got)
	}
	if got := find(1, "EXPOSE"); got != "8080" {
		t.Errorf("EXPOSE %q, want 8080", got)
	}

	c := compose(t)
	spool := c.Services["gateway-1"].Environment["GATEWAY_SPOOL_DIR"]
	if find(1, "ENV") != "GATEWAY_SPOOL_DIR="+spool || find(1, "VOLUME") != spool {
		t.Errorf("ENV %q, VOLUME %q, and compose says the spool is %s", find(1, "ENV"), find(1, "VOLUME"), spool)
	}
	// A new volume takes the owner of the directory that it covers, so each
	// that we write to has to be in the image, owned by that user.
	made := find(0, "RUN")
	for name, s := range c.ofGateway() {
		for _, v := range s.Volumes {
			path := strings.Split(v, ":")[1]
			if dir, ok := strings.CutPrefix(path, "/var/lib/mendian/"); !ok || !strings.Contains(made, "/out/mendian/"+dir) {
				t.Errorf("%s mounts %s, a directory that the image does not have: it would belong to root", name, path)
			}
		}
	}
	if !strings.Contains(find(1, "COPY"), "--from=build --chown=65532:65532 /out/mendian /var/lib/mendian") {
		t.Error("/var/lib/mendian does not belong to the user of the image")
	}
}

// The image is built from what git tracks. A file left out would make the
// revision that `gateway version` tells a modified one.
func TestDockerignoreLeavesOutWhatGitDoes(t *testing.T) {
	t.Parallel()
	ignored := strings.Fields(read(t, ".gitignore"))
	ignored = append(ignored, "/deploy/secrets/")
	var got []string
	for line := range strings.Lines(read(t, ".dockerignore")) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			got = append(got, line)
		}
	}
	slices.Sort(ignored)
	slices.Sort(got)
	if diff := cmp.Diff(ignored, got); diff != "" {
		t.Errorf(".dockerignore (-.gitignore and deploy/.gitignore, +.dockerignore):\n%s", diff)
	}
}
