package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/mendian/mendian/internal/problem"
	"github.com/mendian/mendian/internal/wechat"
)

// errorsView is what is known of one error, or of all.
type errorsView struct {
	Codes    []codeView    `json:"codes"`
	Errcodes []errcodeView `json:"errcodes"`
}

// codeView is a code of our problem documents.
type codeView struct {
	Code      string `json:"code"`
	Status    int    `json:"status"`
	Title     string `json:"title"`
	Detail    string `json:"detail"`
	Retryable bool   `json:"retryable"`
}

// errcodeView is what an errcode of WeChat's becomes.
type errcodeView struct {
	Errcode  *int64   `json:"errcode"`  // null: a failure that comes without one
	Families []string `json:"families"` // empty: all calls
	Endpoint string   `json:"endpoint,omitempty"`
	Code     string   `json:"code"`
	Status   int      `json:"status"`
	Executed string   `json:"executed"` // what it says of a write: yes, no, unknown
	TryAgain string   `json:"try_again"`
	Pointers []string `json:"pointers"`
}

func newErrorsCmd() *cobra.Command {
	var output, lang string
	cmd := &cobra.Command{
		Use: "errors [code or errcode]", Short: "Explain an error of the API or an errcode of WeChat's; without an argument list all",
		Long: `Explains, without asking anybody, what an error means and what to do about it:
a code of the API (the member code of a problem document), or an errcode that
WeChat answers with (upstream.errcode). The same errcode means different things
in different families of calls.`,
		Example: `  gateway errors 85024
  gateway errors store_duplicate --lang zh
  gateway errors -- -1
  gateway errors -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if lang != "en" && lang != "zh" {
				return fmt.Errorf("--lang %s: want en or zh", lang)
			}
			about := ""
			if len(args) == 1 {
				about = args[0]
			}
			v := explain(about, lang)
			if len(v.Codes) == 0 {
				return fmt.Errorf("nobody documents an error %q; what WeChat answers and nobody documents is 502 wechat_unknown_error, and gateway errors lists the rest", about)
			}
			return show(cmd.OutOrStdout(), output, v, func(w io.Writer) {
				if about == "" {
					v.list(w, lang)
				} else {
					v.describe(w, lang)
				}
			})
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if negative.MatchString(err.Error()) {
			return fmt.Errorf("%w; a negative errcode goes behind two dashes: gateway errors -- -1", err)
		}
		return err
	})
	outputFlag(cmd, &output)
	cmd.Flags().StringVar(&lang, "lang", "en", "en or zh")
	return cmd
}

var negative = regexp.MustCompile(`in -\d`)

// explain finds what about names, a code or an errcode; "" names all. Nothing
// is found of what no document lists.
func explain(about, lang string) errorsView {
	v := errorsView{Codes: []codeView{}, Errcodes: []errcodeView{}}
	wanted := map[string]bool{}
	number, err := strconv.ParseInt(about, 10, 64)
	isNumber := err == nil
	for _, row := range wechat.Errcodes() {
		if about == "" || about == row.Code || isNumber && row.Errcode == number && number != 0 {
			v.Errcodes = append(v.Errcodes, viewErrcode(row, lang))
			wanted[row.Code] = true
		}
	}
	for _, code := range problem.Codes() {
		if about == "" || about == code || wanted[code] {
			title, detail := problem.Text(code, lang)
			v.Codes = append(v.Codes, codeView{code, problem.KindOf(code).Status(), title, detail, problem.Retryable(code)})
		}
	}
	return v
}

func viewErrcode(row wechat.ErrcodeRow, lang string) errcodeView {
	v := errcodeView{Families: []string{}, Endpoint: row.Endpoint, Code: row.Code, Status: problem.KindOf(row.Code).Status(),
		Executed: executed[row.Class], TryAgain: in(tryAgain[row.Retry], lang), Pointers: append([]string{}, row.Pointers...)}
	for _, f := range row.Families {
		v.Families = append(v.Families, string(f))
	}
	if row.Class == wechat.Executed {
		v.Status = http.StatusAccepted // a warning beside what was made
	}
	if row.Errcode != 0 {
		v.Errcode = &row.Errcode
	}
	return v
}

var executed = map[wechat.Class]string{
	wechat.Refused: "no", wechat.TokenRejected: "no", wechat.TicketRefused: "no", wechat.Ambiguous: "unknown", wechat.Executed: "yes",
}

// tryAgain is what the words of api/errors.yaml mean, in English and Chinese.
var tryAgain = map[string][2]string{
	"never":   {"never", "无效"},
	"backoff": {"after a while", "稍后"},
	"quota":   {"after the quota's reset", "额度重置后"},
	"token":   {"by itself, once, with a fresh token", "网关会换用新令牌自动重试一次"},
	"fix":     {"with another value", "修改参数后"},
	"state":   {"once the state has changed", "状态改变后"},
}

func in(text [2]string, lang string) string {
	if lang == "zh" {
		return text[1]
	}
	return text[0]
}

// calls says which calls an errcode belongs to.
func (v errcodeView) calls(lang string) string {
	switch {
	case v.Endpoint != "":
		return v.Endpoint
	case len(v.Families) > 0:
		return strings.Join(v.Families, ", ")
	}
	return in([2]string{"all calls", "全部接口"}, lang)
}

func (v errcodeView) number(lang string) string {
	if v.Errcode == nil {
		return in([2]string{"no errcode", "无 errcode"}, lang)
	}
	return strconv.FormatInt(*v.Errcode, 10)
}

// describe tells all about one error.
func (v errorsView) describe(w io.Writer, lang string) {
	for i, c := range v.Codes {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%d %s\n%s\n%s\n", c.Status, c.Code, c.Title, c.Detail)
		rows := slices.DeleteFunc(slices.Clone(v.Errcodes), func(e errcodeView) bool { return e.Code != c.Code })
		if len(rows) == 0 {
			continue
		}
		fmt.Fprintln(w, in([2]string{"WeChat's errcodes that become it:", "对应的微信 errcode："}, lang))
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, e := range rows {
			fmt.Fprintf(t, "  %s\t%s\t%s%s\t%s%s\t%s\n", e.number(lang), e.calls(lang),
				in([2]string{"executed: ", "是否已执行："}, lang), in(yesNo[e.Executed], lang),
				in([2]string{"try again: ", "重试："}, lang), e.TryAgain, strings.Join(e.Pointers, " "))
		}
		t.Flush()
	}
}

var yesNo = map[string][2]string{"yes": {"yes", "是"}, "no": {"no", "否"}, "unknown": {"unknown", "未知"}}

// list names all errors, one a line.
func (v errorsView) list(w io.Writer, lang string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range v.Codes {
		fmt.Fprintf(t, "%d\t%s\t%s\n", c.Status, c.Code, c.Title)
	}
	t.Flush()
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, e := range v.Errcodes {
		fmt.Fprintf(t, "%s\t%s\t%d %s\n", e.number(lang), e.calls(lang), e.Status, e.Code)
	}
	t.Flush()
}
