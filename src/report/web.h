/* Style and scripts of the HTML pages, made of the files in src/report/web by the build. */
#ifndef XKD_REPORT_WEB_H
#define XKD_REPORT_WEB_H

extern const char xkd_web_page_css[];
extern const char xkd_web_page_js[];
extern const char xkd_web_map_js[];

#endif
