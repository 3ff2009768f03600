#!/bin/sh
# JSON-RPC in a shell, with curl: sh call.sh http://127.0.0.1:8080/rpc
call() {
    curl --silent --show-error --max-time 30 -H 'Content-Type: application/json' \
        -d "{\"jsonrpc\": \"2.0\", \"method\": \"$2\", \"params\": $3, \"id\": 1}" "$1" |
        sed -e 's/^{"jsonrpc":"2.0","result":\(.*\),"id":1}$/\1/' \
            -e 's/^.*"code":\(-[0-9]*\),"message":"\([^"]*\)".*$/\1 \2/'
    echo
}

call "$1" add '[5, 6]'
call "$1" text.count '["To be or not to be"]'
call "$1" divide '[1, 0]'
call "$1" os.system '["true"]'
