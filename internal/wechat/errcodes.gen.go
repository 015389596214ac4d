package wechat

// Replaced by the generator (api/errors.yaml).
var errcodes = map[int64][]ErrcodeRow{
	40001: {{Errcode: 40001, Class: TokenRejected, Code: "merchant_token_unavailable", Retryable: true}},
	42001: {{Errcode: 42001, Class: TokenRejected, Code: "merchant_token_unavailable", Retryable: true}},
	40014: {{Errcode: 40014, Class: TokenRejected, Code: "merchant_token_unavailable", Retryable: true}},
}
