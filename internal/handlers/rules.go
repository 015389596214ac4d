package handlers

import (
	"strings"

	"github.com/mendian/mendian/internal/problem"
)

// A rule is what a field broke: its code in errors[].code, and its text in
// English and Chinese. %s stands for the bound or whatever names the rule;
// the value that was sent never appears.
type rule struct {
	code string
	text [2]string
}

var (
	ruleRequired         = rule{"required", [2]string{"is required", "为必填项"}}
	ruleType             = rule{"wrong_type", [2]string{"must be %s", "类型必须为 %s"}}
	ruleNull             = rule{"wrong_type", [2]string{"must not be null", "不能为 null"}}
	ruleBlank            = rule{"pattern", [2]string{"must hold more than blanks", "不能只有空白字符"}}
	rulePattern          = rule{"pattern", [2]string{"must match %s", "必须匹配 %s"}}
	ruleFormat           = rule{"format", [2]string{"must be a %s", "格式必须为 %s"}}
	ruleTooLong          = rule{"too_long", [2]string{"has at most %s characters", "最多 %s 个字符"}}
	ruleTooShort         = rule{"too_short", [2]string{"has at least %s characters", "至少 %s 个字符"}}
	ruleTooWide          = rule{"too_long", [2]string{"has at most %s characters, of which each Chinese one counts as two", "最多 %s 个字符（每个汉字计为两个）"}}
	ruleTooNarrow        = rule{"too_short", [2]string{"has at least %s characters, of which each Chinese one counts as two", "至少 %s 个字符（每个汉字计为两个）"}}
	ruleNamesWeChat      = rule{"not_allowed", [2]string{"must not contain WeChat", "不能包含“微信”或 WeChat"}}
	ruleInvisible        = rule{"not_allowed", [2]string{"must not hold invisible characters, such as zero-width ones and marks of direction", "不能包含不可见字符，例如零宽字符和文字方向标记"}}
	ruleParentCategory   = rule{"not_allowed", [2]string{"must be the parent of secondary_category_id; see GET /categories", "必须是 secondary_category_id 的上级类目，请查看 GET /categories"}}
	ruleSecondLevel      = rule{"not_allowed", [2]string{"must be a category of level 2; see GET /categories", "必须是二级类目，请查看 GET /categories"}}
	ruleSensitive        = rule{"required", [2]string{"is required for a sensitive category; see GET /categories", "敏感类目必填，请查看 GET /categories"}}
	ruleParentheses      = rule{"not_allowed", [2]string{"must not hold parentheses; WeChat shows the names as business_name (branch_name)", "不能包含括号；微信会显示为 business_name (branch_name)"}}
	ruleRepeatsName      = rule{"not_allowed", [2]string{"must not repeat business_name", "不能重复 business_name"}}
	ruleNamesRegion      = rule{"not_allowed", [2]string{"must not name the %s, which has a field of its own", "不能包含 %s，它有单独的字段"}}
	ruleDegrees          = rule{"out_of_range", [2]string{"is between -%s and %s degrees", "必须在 -%s 到 %s 度之间"}}
	rulePath             = rule{"pattern", [2]string{"must be a page of the mini program without a scheme, the values in its query percent-encoded", "必须是小程序页面路径，不含协议头，参数值须经过 URL 编码"}}
	rulePriceZero        = rule{"too_small", [2]string{"is over 0", "必须大于 0"}}
	ruleBelowMin         = rule{"too_small", [2]string{"is at least min", "不能小于 min"}}
	ruleAboveOriginal    = rule{"too_large", [2]string{"is at most original", "不能大于 original"}}
	ruleTooMany          = rule{"too_many", [2]string{"has at most %s items", "最多 %s 项"}}
	ruleTooFew           = rule{"too_few", [2]string{"has at least %s items", "至少 %s 项"}}
	ruleTooLarge         = rule{"too_large", [2]string{"is at most %s", "最大为 %s"}}
	ruleTooSmall         = rule{"too_small", [2]string{"is at least %s", "最小为 %s"}}
	ruleEnum             = rule{"not_allowed", [2]string{"must be one of: %s", "必须为以下之一：%s"}}
	ruleUnknownField     = rule{"unknown_field", [2]string{"is not a member that this operation knows", "不是此操作认识的字段"}}
	ruleUnknownParameter = rule{"unknown_parameter", [2]string{"is not a parameter of this operation", "不是此操作的参数"}}
	ruleRepeated         = rule{"repeated", [2]string{"must be sent once", "只能出现一次"}}
	ruleScheme           = rule{"scheme", [2]string{"must be Bearer and the API key; no other scheme is taken", "必须为 Bearer 加 API 密钥，不支持其他方式"}}
	ruleKeyInQuery       = rule{"key_in_query", [2]string{
		"API keys are taken from the header Authorization only; revoke this key, addresses are written to logs",
		"API 密钥只能放在 Authorization 请求头中；地址会被写入日志，请吊销此密钥"}}
	ruleLiveStatus  = rule{"required", [2]string{"with source=live must be one of: %s", "使用 source=live 时必须为以下之一：%s"}}
	ruleLiveFilter  = rule{"not_allowed", [2]string{"WeChat's list has no filters; use source=local", "微信的列表不支持筛选，请使用 source=local"}}
	ruleOtherScheme = rule{"not_allowed", [2]string{"is for scheme=store_program alone", "仅适用于 scheme=store_program"}}
	ruleEncoding    = rule{"encoding", [2]string{"is not encoded as a query should be", "查询编码有误"}}
	ruleSyntax      = rule{"syntax", [2]string{"%s", "JSON 语法错误：%s"}}
	ruleNUL         = rule{"pattern", [2]string{"must not hold the character U+0000", "不能包含字符 U+0000"}}
	ruleCutOff      = rule{"cut_off", [2]string{"the body ended early", "请求体不完整"}}
	ruleNoBody      = rule{"not_allowed", [2]string{"this operation takes no body", "此操作不接受请求体"}}
	ruleForm        = rule{"syntax", [2]string{"the body is no multipart form that ends as its boundary says", "请求体不是以其 boundary 结尾的 multipart 表单"}}
	ruleFileSize    = rule{"too_large", [2]string{"has at most %s bytes", "最多 %s 字节"}}
	ruleEmptyFile   = rule{"too_small", [2]string{"is empty", "文件为空"}}
	rulePicture     = rule{"format", [2]string{"is no whole picture of a format that is taken here", "不是此处支持格式的完整图片"}}
	rulePixels      = rule{"too_large", [2]string{"has at most %s pixels on a side", "每边最多 %s 像素"}}
	ruleOfCompany   = rule{"required", [2]string{"is required when company_name is given", "填写 company_name 时必填"}}
	ruleTenantID    = rule{"invalid", [2]string{"is no tenant's id", "不是租户 ID"}}
	ruleOverlap     = rule{"invalid", [2]string{"an ISO 8601 duration up to seven days, such as PT24H", "ISO 8601 时长，最长七天，例如 PT24H"}}
	ruleInvalid     = rule{"invalid", [2]string{"breaks a rule of the contract", "不符合接口约定"}}
	ruleHours       = rule{"not_after_open", [2]string{"is not after open; WeChat may refuse it", "不晚于 open；微信可能拒绝"}}
)

// maxFields is how many fields a problem names at most.
const maxFields = 50

// field says in the caller's language that something broke a rule.
func field(s *state, pointer string, r rule, bound string) problem.Field {
	text := r.text[0]
	if s.language() == "zh" {
		text = r.text[1]
	}
	return problem.Field{Pointer: pointer, Code: r.code, Detail: strings.ReplaceAll(text, "%s", bound)}
}

// badParameter refuses a header, path or query parameter.
func badParameter(s *state, name string, r rule, bound string) *problem.Error {
	return problem.Of(problem.CodeInvalidParameter).WithFields(field(s, name, r, bound))
}

// malformed refuses a body that can't be read.
func malformed(s *state, r rule, bound string) *problem.Error {
	return problem.Of(problem.CodeMalformedJSON).WithFields(field(s, "", r, bound))
}
